"""Far more adapters than slots, coming and going while requests run; every answer is checked."""

import json
import random
from pathlib import Path

import pytest
from loops import engine_of

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig

ROOT = Path(__file__).parents[2]
ANSWERS = json.loads((ROOT / "tests/data/demo_answers.json").read_text(encoding="utf-8"))
GREEDY = SamplingParams(temperature=0, max_tokens=80)


def answers_of(adapter: str | None) -> list[dict]:
    return [answer for answer in ANSWERS if answer["adapter_id"] == adapter]


def copy_adapter(name: str, folder: Path, number: int) -> Path:
    """An adapter that answers like one of the demo's, and whose scaling is its own."""
    folder.mkdir(parents=True)
    config = json.loads((ROOT / "adapters" / name / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(
        json.dumps({**config, "lora_alpha": config["lora_alpha"] * (1 + number * 1e-6)})
    )
    (folder / "adapter_model.safetensors").symlink_to(ROOT / "adapters" / name / "adapter_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    """A folder of 300 adapters; the last digit of a name's number, by threes, says which of the demo's it is like."""
    folder = tmp_path_factory.mktemp("many")
    for number in range(300):
        copy_adapter(f"A{number % 3 + 1}", folder / f"user{number}", number)
    return folder


def test_a_working_set_far_above_the_slots(many):
    config = EngineConfig(max_loras=4, max_num_seqs=16, host_adapter_memory="4MiB")
    llm = LLM("demo", adapters=many, config=config)
    generator = random.Random(1)
    requests = [(number, generator.choice(answers_of(f"A{number % 3 + 1}"))) for number in range(300)]
    requests += [(None, generator.choice(answers_of(None))) for _ in range(30)]
    requests += [(number, generator.choice(answers_of(f"A{number % 3 + 1}"))) for number in (7, 7, 7, 8, 8, 9)]
    generator.shuffle(requests)
    names = [None if number is None else f"user{number}" for number, _ in requests]
    outputs = llm.generate([answer["prompt"] for _, answer in requests], GREEDY, names)
    for output, name, (_, answer) in zip(outputs, names, requests, strict=True):
        assert output.error is None
        assert (output.outputs[0].text, output.adapter_id) == (answer["answer"], name)
    digests = {output.adapter_id: output.adapter_digest for output in outputs}
    assert len(set(digests.values())) == 301, "each content has a digest of its own, and the base model none"
    engine_of(llm).check_integrity()
    status = {each.adapter_id: each for each in llm.list_adapters()}
    assert sum(each.is_resident for each in status.values()) == 4
    assert status["user7"].requests == 4 and status["user7"].tokens > 0
    metrics = llm.metrics()
    assert (metrics.requests_finished, metrics.requests_failed, metrics.requests_running) == (len(requests), 0, 0)
    assert metrics.generated_tokens == sum(len(output.outputs[0].token_ids) for output in outputs)
    assert metrics.prompt_tokens == sum(len(output.prompt_token_ids) for output in outputs)
    assert metrics.cached_prompt_tokens == sum(output.num_cached_tokens for output in outputs)
    pool = metrics.adapters
    assert (pool.slots, pool.slots_in_use, pool.requests) == (4, 4, 306) and pool.host_bytes <= 4 << 20
    assert pool.loads >= 300 and pool.evictions == pool.loads - 4 and pool.load_seconds > 0
    assert pool.tokens == sum(each.tokens for each in status.values())
    assert all(each.loads >= 1 and each.digest == digests[each.adapter_id] for each in status.values())


def test_a_request_for_a_rare_adapter_is_not_starved(many):
    """One slot, which a stream of other requests would keep for ever."""
    llm = LLM("demo", adapters=many, config=EngineConfig(max_loras=1, max_num_seqs=2))
    common, rare = answers_of("A1")[0], answers_of("A2")[0]
    prompts = [common["prompt"]] * 3 + [rare["prompt"]] + [common["prompt"]] * 300
    names = ["user0"] * 3 + ["user1"] + ["user0"] * 300
    # Of different lengths, so that one of the two places always has the common adapter.
    params = [SamplingParams(temperature=0, max_tokens=3 + index % 5, ignore_eos=True) for index in range(len(prompts))]
    finished = [chunk.index for chunk in llm.stream(prompts, params, names) if chunk.output]
    assert 4 < finished.index(3) < 100


def test_names_change_hands_while_requests_run(tmp_path):
    llm = LLM("demo", config=EngineConfig(max_loras=2, max_num_seqs=4))
    first, second = answers_of("A1")[0], answers_of("A2")[0]
    running = llm.stream([first["prompt"]] * 6, GREEDY, "A1")
    texts = {}
    for number, chunk in enumerate(running):
        if number == 3:
            llm.add_adapter("A1", copy_adapter("A2", tmp_path / "new", 1))
            [output] = llm.generate(second["prompt"], GREEDY, "A1")
            assert output.outputs[0].text == second["answer"]
            llm.remove_adapter("A1")
            with pytest.raises(Exception, match="unknown adapter_id 'A1'"):
                llm.generate(second["prompt"], GREEDY, "A1")
        if chunk.output is not None:
            texts[chunk.index] = chunk.output.outputs[0].text
    # All were sent at the first step, before the name changed hands.
    assert texts == dict.fromkeys(range(6), first["answer"])
    engine_of(llm).check_integrity()


def test_an_adapter_that_cannot_be_read_fails_alone(tmp_path):
    llm = LLM("demo")
    broken = copy_adapter("A1", tmp_path / "broken", 1)
    (broken / "adapter_model.safetensors").unlink()
    (broken / "adapter_model.safetensors").write_bytes(b"nothing")
    llm.add_adapter("broken", broken)
    good = answers_of("A3")[0]
    outputs = llm.generate([good["prompt"]] * 3, GREEDY, ["A3", "broken", "A3"])
    assert [output.error is None for output in outputs] == [True, False, True]
    assert "broken" in outputs[1].error and not outputs[1].outputs
    assert outputs[0].outputs[0].text == outputs[2].outputs[0].text == good["answer"]
    engine_of(llm).check_integrity()


def test_equal_token_counts_of_different_sequences():
    """Batches of as many tokens, but of other sequences and adapters, one after the other: nothing is left over."""
    llm = LLM("demo", config=EngineConfig(enable_prefix_caching=False))
    chosen = [answers_of(name)[0] for name in ("A1", "A2", "A3", None)]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 1, 1], [2, 0, 2, 0], [0, 0, 3, 3]):
        asked = [chosen[place] for place in order]
        outputs = llm.generate([each["prompt"] for each in asked], GREEDY, [each["adapter_id"] for each in asked])
        assert [output.outputs[0].text for output in outputs] == [each["answer"] for each in asked]
