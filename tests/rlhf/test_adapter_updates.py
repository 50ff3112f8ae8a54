"""New versions of adapters from memory: each request keeps its own, and nothing piles up."""

import json
import re
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from loops import engine_of, held_after
from peft import LoraConfig
from safetensors.torch import load_file
from updates import LORA, PROMPTS, answers, make_lora, make_models, tokens

from mindgen import LLM, SamplingParams
from mindgen.errors import AdapterError, ConfigError, WeightUpdateError

LONG = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_models(tmp_path_factory.mktemp("models"), count=1)[0]


@pytest.fixture(scope="module")
def loras(model, tmp_path_factory):
    root = tmp_path_factory.mktemp("loras")
    return [make_lora(model, root / str(seed), seed) for seed in range(3)]


@pytest.fixture(scope="module")
def fresh(model, loras):
    """Answers and digests of an engine that has read the adapters from their folders."""
    llm = LLM(model, {str(place): folder for place, folder in enumerate(loras)}, block_size=4)
    found = [answers(llm, str(place)) for place in range(len(loras))]
    llm.close()
    return [(tokens(outputs), outputs[0].adapter_digest) for outputs in found]


@pytest.fixture(scope="module")
def llm(model):
    llm = LLM(model, block_size=4)
    yield llm
    llm.close()


def sent(folder) -> tuple[dict[str, torch.Tensor], dict]:
    return load_file(folder / "adapter_model.safetensors"), json.loads((folder / "adapter_config.json").read_text())


@pytest.mark.parametrize("sizes", [{}, {"tensor_parallel_size": 2}, {"pipeline_parallel_size": 2}])
def test_versions_from_memory_are_those_from_folders(model, loras, fresh, sizes):
    adapters = {"A": loras[2], **{str(place): loras[place] for place in (0, 1)}}
    llm = LLM(model, adapters, block_size=4, **sizes)
    base = llm.weight_checksum
    answers(llm, "A")
    for place in (0, 1):
        tensors, config = sent(loras[place])
        report = llm.update_weights(tensors, "A", adapter_config=config if place == 0 else None)
        outputs = answers(llm, "A")
        assert tokens(outputs) == tokens(answers(llm, str(place)))
        assert tokens(outputs) == fresh[place][0] or sizes  # several ranks round otherwise
        assert {(each.adapter_digest, each.adapter_version) for each in outputs} == {(fresh[place][1], place + 1)}
        assert (report.checksum_after, report.version, report.tensors) == (fresh[place][1], place + 1, len(tensors))
        assert report.modules == len(tensors) // 2 and report.bytes_received == sum(t.nbytes for t in tensors.values())
        assert answers(llm, "A")[0].num_cached_tokens > 0
    assert report.checksum_before == fresh[0][1]
    with pytest.raises(WeightUpdateError, match="is what is served already"):
        llm.update_weights(tensors, "A", adapter_config=LORA.to_dict())  # as PEFT has it, with sets
    llm.update_weights(loras[0], "A")
    assert tokens(answers(llm, "A")) == tokens(answers(llm, "0"))
    assert (llm.weight_checksum, llm.weight_version) == (base, 0)
    llm.close()


def test_what_is_refused(llm, loras):
    tensors, _ = sent(loras[0])
    llm.update_weights(loras[1], "B")
    cases = [
        (lambda: llm.update_weights(tensors, "new"), WeightUpdateError, "adapter new is new: give adapter_config"),
        (lambda: llm.update_weights(loras[1], "B"), WeightUpdateError, "is what is served already"),
        (lambda: llm.update_weights(tensors, "B", version=1), WeightUpdateError, "version 1, and version 1 is served"),
        (lambda: llm.update_weights({}, "B"), WeightUpdateError, "no tensor has come"),
        (
            lambda: llm.update_weights({"x.weight": tensors[next(iter(tensors))]}, "B"),
            AdapterError,
            "is not of the form",
        ),
        (lambda: llm.update_weights(dict(list(tensors.items())[:2]), "B"), AdapterError, "layers without tensors"),
        (
            lambda: llm.update_weights({n: t * float("nan") for n, t in tensors.items()}, "B"),
            AdapterError,
            "not finite",
        ),
        (lambda: llm.update_weights({n: t[:, :3] for n, t in tensors.items()}, "B"), AdapterError, "rank|does not fit"),
        (lambda: llm.update_weights(tensors, "B", allow_nan=True), WeightUpdateError, "allow_nan goes with the target"),
        (lambda: llm.update_weights(tensors, "B", adapter_config={"r": {}, 3: object()}), ConfigError, "no form in"),
        (lambda: llm.update_weights(tensors, "base", version=9), WeightUpdateError, "names that the model does not"),
    ]
    before = tokens(answers(llm, "B"))
    for call, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert tokens(answers(llm, "B")) == before and answers(llm, "B")[0].adapter_version == 1


def finished(stream):
    return [chunk.output for chunk in stream if chunk.output is not None]


@pytest.mark.parametrize("in_flight", ["finish", "abort", "continue"])
def test_requests_in_flight(llm, loras, fresh, in_flight):
    first = llm.update_weights(loras[0], "C", expect_change=False)
    with held_after(llm, 6, *(partial(llm.stream, PROMPTS, LONG, name) for name in ("C", None))) as (stream, other):
        second = llm.update_weights(loras[1], "C", in_flight=in_flight)
        engine_of(llm)  # the loop tells what has ended before it makes a step again
    outputs = finished(stream)
    reasons = {each.outputs[0].finish_reason for each in outputs}
    versions = {each.adapter_version for each in outputs}
    if in_flight == "finish":
        assert (reasons, versions, second.aborted) == ({"length"}, {first.version}, 0)
        assert {each.adapter_digest for each in outputs} == {fresh[0][1]}
    elif in_flight == "abort":
        assert (reasons, versions, second.aborted) == ({"abort"}, {first.version}, len(PROMPTS))
    else:
        assert (reasons, versions, second.aborted) == ({"length"}, {second.version}, 0)
        for each in outputs:
            assert {*each.outputs[0].adapter_versions} == {first.version, second.version}
            assert {*each.outputs[0].weight_versions} == {0}
    assert all(each.outputs[0].weight_versions is None for each in finished(other))
    assert tokens(answers(llm, "C")) == fresh[1][0]
    engine_of(llm).check_integrity()


def resident_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_versions_do_not_pile_up(llm, loras, count):
    tensors, config = sent(loras[0])
    base = llm.weight_checksum
    first = llm.update_weights(tensors, "many", adapter_config=config, expect_change=False).version
    held = llm.stream(PROMPTS, LONG, "many")  # the first version is in use until somebody reads on
    held.advance()
    name = next(name for name in tensors if "lora_B" in name)

    def counts():
        pool, registry = engine_of(llm)._pool, llm._model.registry
        return (
            len(pool._counters), len(pool._host._adapters), len(pool._read_seconds), len(registry._superseded),
            len(registry.names()), pool.metrics().slots,
        )  # fmt: skip

    sizes, memory = [], []
    for number in range(count):
        tensors[name] = tensors[name] + 0.01
        llm.update_weights(tensors, "many")
        if number % 10 == 0:
            llm.generate([PROMPTS[1]], SamplingParams(max_tokens=1), "many")
        sizes.append(counts())
        memory.append(resident_bytes())
    assert {output.adapter_version for output in finished(held)} == {first}
    assert max(sizes[20:]) <= max(sizes[:20])
    assert memory[-1] - memory[count // 2] < 8 << 20
    assert answers(llm, "many")[0].adapter_version == first + count
    assert llm.weight_checksum == base and llm.weight_version == 0


def test_streams_while_versions_change(llm, loras, fresh):
    expected = {digest: found for found, digest in fresh}
    llm.update_weights(loras[0], "D")
    found, done = [], threading.Event()

    def ask():
        while not done.is_set():
            found.extend(zip(PROMPTS, answers(llm, "D"), strict=True))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    number = 0
    while number < 30 or len(found) < 60:
        llm.update_weights(loras[(number + 1) % 3], "D")
        number += 1
    done.set()
    for thread in threads:
        thread.join(60)
    assert len({output.adapter_version for _, output in found}) > 5
    for prompt, output in found:
        assert output.error is None
        assert output.outputs[0].token_ids == expected[output.adapter_digest][PROMPTS.index(prompt)][0]
    engine_of(llm).check_integrity()


def test_dora_follows_the_base(model, tmp_path):
    """Its norms are of the base model's weights, new ones included."""
    other = make_models(tmp_path, count=2)[1]
    config = LoraConfig(r=4, lora_alpha=8, target_modules=LORA.target_modules, use_dora=True)
    dora = make_lora(model, tmp_path / "dora", 5, config)
    expected_llm = LLM(other, {"dora": dora}, block_size=4)
    expected = tokens(answers(expected_llm, "dora"))
    expected_llm.close()
    llm = LLM(model, {"dora": dora}, block_size=4)
    before = tokens(answers(llm, "dora"))
    llm.update_weights(other)
    assert tokens(answers(llm, "dora")) == expected != before
    llm.close()
