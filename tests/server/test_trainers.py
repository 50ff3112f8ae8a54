"""What a trainer asks of a server: new weights, and memory that is given back for a while."""

import asyncio
import shutil
import threading
from pathlib import Path

import openai
import pytest
from guarded_server import ADMIN
from safetensors.torch import load_file
from trained_server import ASKED, MORE, Trained, token_ids
from updates import LORA, PROMPTS

from mindgen.rlhf import GenerationClient, WeightSender, WeightSendError


def streamed(chunk) -> list[int]:
    """The tokens of a chunk; the last one of a choice has none."""
    return [token for choice in chunk.choices for token in getattr(choice, "token_ids", [])]


def test_new_weights_answer_as_a_model_of_these(trained):
    trained.restore()
    before = trained.ask()
    assert before.weight_checksum == trained.checksums[0]
    assert token_ids(before) == trained.expected[trained.checksums[0]]
    report = trained.update("1", version=before.weight_version + 5).json()
    assert (report["target"], report["version"], report["missing"]) == ("base", before.weight_version + 5, [])
    assert [report["checksum_before"], report["checksum_after"]] == trained.checksums
    raw = trained.server.client().completions.with_raw_response.create(**ASKED, extra_body=MORE)
    after = raw.parse()
    assert token_ids(after) == trained.expected[trained.checksums[1]] != token_ids(before)
    assert (after.weight_version, after.weight_checksum) == (report["version"], trained.checksums[1])
    assert raw.headers["X-Mindgen-Weight-Version"] == str(report["version"])
    assert raw.headers["X-Mindgen-Weight-Checksum"] == trained.checksums[1]
    card = trained.server.client().models.retrieve("policy")
    assert (card.weight_version, card.weight_checksum) == (report["version"], trained.checksums[1])


def test_under_streams_nothing_mixes(trained):
    trained.restore()
    found, problems, is_over = [], [], threading.Event()

    def ask() -> None:
        try:
            while not is_over.is_set():
                chunks = list(trained.ask(prompt=PROMPTS[0], stream=True))
                ids = [token for chunk in chunks for token in streamed(chunk)]
                found.append(({(chunk.weight_version, chunk.weight_checksum) for chunk in chunks}, ids))
        except Exception as error:
            problems.append(error)

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    versions = {trained.ask().weight_version: trained.checksums[0]}
    for turn in range(6):
        report = trained.update(str((turn + 1) % 2)).json()
        versions[report["version"]] = report["checksum_after"]
    is_over.set()
    for thread in asking:
        thread.join(60)
    assert not problems and len({version for given, _ in found for version, _ in given}) > 2
    for given, ids in found:
        ((version, checksum),) = given
        assert versions[version] == checksum and ids == trained.expected[checksum][0]


def test_requests_that_go_on_say_what_each_token_is_from(trained):
    trained.restore()
    asked = {"prompt": PROMPTS[0], "max_tokens": 200, "n": 8, "temperature": 1, "stream": True}
    for turn in range(20):  # until an update falls into an answer
        stream = trained.ask(**asked)
        chunks = [next(stream)]
        version = trained.update(str((turn + 1) % 2), in_flight="continue").json()["version"]
        chunks += stream
        said: dict[int, list[int]] = {}
        for chunk in chunks:
            for choice in chunk.choices:
                said.setdefault(choice.index, []).extend([chunk.weight_version] * len(getattr(choice, "token_ids", [])))
        ends = [choice for chunk in chunks for choice in chunk.choices if choice.finish_reason]
        if chunks[-1].weight_version == version:
            break
        assert not any(hasattr(choice, "weight_versions") for choice in ends)
    assert len(ends) == 8
    for choice in ends:
        assert choice.weight_versions == said[choice.index] == sorted(said[choice.index])
        assert {*choice.weight_versions} == {version - 1, version}


def adapter_tensors(folder: Path) -> dict:
    return load_file(folder / "adapter_model.safetensors")


def test_adapters_come_as_weights(trained):
    trained.restore()
    assert trained.update("lora0", target="learner").json()["version"] == 1
    first = trained.ask(model="learner")
    assert trained.update("lora1", target="learner").json()["checksum_before"] == first.adapter_digest
    second = trained.ask(model="learner")
    assert first.adapter_digest != second.adapter_digest and token_ids(first) != token_ids(second)
    with WeightSender(trained.socket) as sender:
        config = LORA.to_dict() | {"target_modules": list(LORA.target_modules), "peft_type": "LORA"}
        sent = adapter_tensors(trained.root / "lora0")
        report = sender.send(
            sent, "sent", adapter_config={name: config[name] for name in ("r", "lora_alpha", "target_modules")}
        )
        assert token_ids(trained.ask(model="sent")) == token_ids(first)
        assert report["checksum_after"] == first.adapter_digest == trained.ask(model="sent").adapter_digest
        with pytest.raises(WeightSendError, match="served already"):
            sender.send(sent, "sent")
    for name in ("learner", "sent"):
        assert trained.server.client().models.retrieve(name).parent == "policy"
        unloaded = trained.post("/v1/unload_lora_adapter", json={"lora_name": name})
        assert unloaded.status_code == 200, unloaded.text
        with pytest.raises(openai.NotFoundError):
            trained.ask(model=name)


def test_an_adapters_answers_have_its_own_version(trained):
    """Whatever the base model's is; trainers call it global_steps."""
    trained.restore()
    for version, folder in ((7, "lora0"), (9, "lora1")):
        assert trained.update(folder, target="learner", version=version).status_code == 200
        raw = trained.server.client().completions.with_raw_response.create(
            **(ASKED | {"model": "learner"}), extra_body=MORE
        )
        assert raw.parse().adapter_version == version and raw.headers["X-Mindgen-Adapter-Version"] == str(version)
        assert {chunk.adapter_version for chunk in trained.ask(model="learner", stream=True)} == {version}

        async def ask(model):
            async with GenerationClient(trained.server.address, model=model) as client:
                return await client.generate("one", prompt_ids=[5, 6], sampling_params={"max_tokens": 2})

        assert asyncio.run(ask("learner")).extra_fields["global_steps"] == version
        base = trained.ask().weight_version
        assert asyncio.run(ask("policy")).extra_fields["global_steps"] == base
    assert trained.ask().adapter_version is None
    assert trained.post("/v1/unload_lora_adapter", json={"lora_name": "learner"}).status_code == 200


def test_names_that_no_adapter_may_have(trained):
    refused = trained.update("lora0", target="other")
    assert refused.status_code == 400 and "choose another target" in refused.json()["error"]["message"]
    with WeightSender(trained.socket) as sender, pytest.raises(WeightSendError, match="choose another target"):
        sender.send(adapter_tensors(trained.root / "lora0"), "a/../b", adapter_config={"r": 1, "lora_alpha": 1})


def test_the_base_model_through_the_socket(trained):
    trained.restore()
    with WeightSender(trained.socket) as sender:
        report = sender.send(load_file(trained.root / "1/model.safetensors"), "policy")
    assert (report["target"], report["checksum_after"]) == ("base", trained.checksums[1])
    assert token_ids(trained.ask()) == trained.expected[trained.checksums[1]]


def test_what_is_refused_changes_nothing(trained, tmp_path):
    trained.restore()
    version = trained.ask().weight_version
    damaged = trained.root / "damaged"
    shutil.copytree(trained.root / "1", damaged)
    (damaged / "model.safetensors").write_bytes(b"no tensors")
    (trained.root / "empty").mkdir()
    (trained.root / "link").symlink_to(tmp_path)
    table = [
        ({"path": "1", "version": version}, "weights_refused", None),
        ({"path": "0"}, "weights_refused", None),
        ({"path": "damaged"}, "weights_refused", None),
        ({"path": "empty"}, "weights_refused", None),
        ({"path": "lora0"}, "weights_refused", None),
        ({"path": "1", "target": "learner"}, "weights_refused", None),
        ({"path": "link"}, None, "path"),
        ({"path": "../made"}, None, "path"),
        ({"path": "1", "in_flight": "later"}, None, "in_flight"),
        ({"path": "1", "max_staleness": -1}, None, "max_staleness"),
        ({"path": "1", "speed": 1}, "unknown_parameter", "speed"),
        ({"target": "base"}, None, "path"),
    ]
    for body, code, param in table:
        answer = trained.post("/update_weights", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (400, code, param), (body, error)
        assert "\n" not in error["message"]
    for path in ("/update_weights", "/sleep", "/wake_up"):
        assert trained.post(path, None, json={"path": "1"}).status_code == 403
    assert (after := trained.ask()).weight_version == version and after.weight_checksum == trained.checksums[0]
    (trained.root / "link").unlink()
    shutil.rmtree(damaged)


def state(trained: Trained) -> tuple[bool, int, int]:
    with trained.server.http(ADMIN) as http:
        is_sleeping = http.get("/is_sleeping").json()["is_sleeping"]
        return is_sleeping, http.get("/ready").status_code, http.get("/health").status_code


@pytest.mark.parametrize("level", [1, 2])
def test_sleep_and_wake_up(trained, level):
    trained.restore()
    before = trained.ask()
    assert state(trained) == (False, 200, 200)
    assert trained.post("/sleep", params={"level": level}).status_code == 200
    assert state(trained) == (True, 503, 200)
    with pytest.raises(openai.InternalServerError, match="the engine sleeps") as found:
        trained.ask()
    assert (found.value.status_code, found.value.code) == (503, "asleep")
    with pytest.raises(openai.InternalServerError, match="the engine sleeps"):
        trained.ask(stream=True)
    loaded = trained.post("/v1/load_lora_adapter", json={"lora_name": "x", "lora_path": "lora0"})
    assert (loaded.status_code, loaded.json()["error"]["code"]) == (503, "asleep")
    assert trained.post("/wake_up", params={"tags": "kv_cache"}).status_code == 200
    assert state(trained)[0] == (level == 2)
    assert trained.post("/wake_up", params={"tags": ["weights", "kv_cache"]}).status_code == 200
    assert state(trained) == (False, 200, 200) and token_ids(trained.ask()) == token_ids(before)
    assert trained.post("/sleep").status_code == trained.post("/wake_up").status_code == 200
    for path, params, param in (("/sleep", {"level": 3}, "level"), ("/wake_up", {"tags": "cache"}, "tags")):
        answer = trained.post(path, params=params)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_several_replicas_say_that_they_cannot(replicated):
    for path, body in (("/sleep", None), ("/wake_up", None)):
        with replicated.server.http(ADMIN) as http:
            answer = http.post(path, json=body)
        assert answer.status_code == 400 and "data_parallel_size above 1" in answer.json()["error"]["message"]
