"""Adapters that come while others run, larger than any slot, or more than there are slots."""

from contextlib import closing

import numpy as np
import pytest
import torch
from adapter_options import make_option
from engine_probe import Ask, EngineProbe, tokens
from peft import PeftModel
from probe import Probe
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import AdapterError
from mindgen.runner.ascend import DeviceRunner
from mindgen.sampling_params import SamplingParams

LOGPROBS = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, logprobs=-1)


def prompt(seed: int, length: int = 9) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCAB_SIZE, length).tolist()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model's folder, and adapters of rank 4, 8, 9, 11, 20 by name."""
    folder = make_model("qwen2-tied", tmp_path_factory.mktemp("model"), torch.float32)
    adapters = tmp_path_factory.mktemp("adapters")
    plain = {"all-linear": 4, "everything": 8, "patterns": 9, "rslora-one-layer": 20}
    made = {name: (make_option if name in ("all-linear", "patterns") else make_adapter)(name, folder, adapters)
            for name in plain}  # fmt: skip
    extended = ("dora", "dora-head", "embedding-and-head", "bias-all")
    return folder, made | {name: make_option(name, folder, adapters) for name in extended}


@pytest.fixture(scope="module")
def whole(files):
    """An engine that has had all adapters from the start."""
    return EngineProbe(*files)


def some(files, *names: str) -> dict:
    return {name: files[1][name] for name in names}


def add(probe: EngineProbe, files, *names: str) -> None:
    for name in names:
        probe.engine._adapters.add(name, files[1][name])


def logprobs(requests) -> list:
    return [sequence.logprobs for request in requests for sequence in request.sequences]


def assert_first_token_is_pefts(files, request, name: str) -> None:
    oracle = PeftModel.from_pretrained(load_oracle(files[0], torch.float32), files[1][name]).eval()
    expected = torch.log_softmax(oracle_logits(oracle, request.prompt_token_ids), -1).numpy()
    found = request.sequences[0].logprobs[0]
    np.testing.assert_allclose([found[token] for token in range(VOCAB_SIZE)], expected, atol=2e-4)


def run_late(probe: EngineProbe, files, early: list[str], late: list[str]) -> list:
    """Requests of adapters that have a name from the start, and of others that get one while these run."""
    requests = [probe.add(Ask(prompt(seed), LOGPROBS, name)) for seed, name in enumerate(early)]
    while min(len(request.sequences[0].output_token_ids) for request in requests) < 4:
        probe.step()
    add(probe, files, *late)
    requests += [probe.add(Ask(prompt(seed), LOGPROBS, name)) for seed, name in enumerate(late, start=len(early))]
    probe.run([])
    return requests


@pytest.mark.parametrize(
    ("dtype", "executor"),
    [("bfloat16", "mindgen"), ("float32", "mindgen"), pytest.param("bfloat16", "mindspore", marks=pytest.mark.slow)],
)
def test_a_larger_adapter_that_comes_late_answers_as_one_from_the_start(files, dtype, executor):
    """Bit by bit; and so do those that run while the slots grow."""
    early, late = ["all-linear", "everything"], ["patterns", "rslora-one-layer"]
    whole = EngineProbe(files[0], some(files, *early, *late), dtype, executor=executor)
    expected = whole.run([Ask(prompt(seed), LOGPROBS, name) for seed, name in enumerate(early + late)])
    probe = EngineProbe(files[0], some(files, *early), dtype, executor=executor)
    found = run_late(probe, files, early, late)
    assert tokens(found) == tokens(expected)
    assert logprobs(found) == logprobs(expected)
    if dtype == "float32":
        for request, name in zip(found, early + late, strict=True):
            assert_first_token_is_pefts(files, request, name)


@pytest.mark.parametrize("num_ranks", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_dora_biases_and_tables_come_along(files, whole, num_ranks):
    early, late = ["dora", "embedding-and-head", "bias-all"], ["dora-head", "rslora-one-layer"]
    expected = whole.run([Ask(prompt(seed), LOGPROBS, name) for seed, name in enumerate(early + late)])
    probe = EngineProbe(files[0], some(files, *early), tensor_parallel_size=num_ranks)
    with closing(probe.engine):
        found = run_late(probe, files, early, late)
        again = probe.run([Ask(prompt(seed), LOGPROBS, name) for seed, name in enumerate(early + late)])
    assert tokens(found) == tokens(expected) == tokens(again)
    for request, name in zip(found, early + late, strict=True):
        assert_first_token_is_pefts(files, request, name)


def test_slots_grow_for_more_adapters_of_the_same_rank(files):
    """One adapter had one slot; those that come later need not take turns with it."""
    probe = EngineProbe(files[0], some(files, "all-linear"))
    run_late(probe, files, ["all-linear"], ["everything", "dora"])
    requests = [probe.add(Ask(prompt(1), LOGPROBS, name)) for name in ("all-linear", "everything", "dora")]
    while not all(request.sequences[0].output_token_ids for request in requests):
        probe.step()
    assert not any(request.is_finished for request in requests)
    slots = probe.engine.metrics().adapters.slots
    probe.run([])
    probe.run([Ask(prompt(seed), LOGPROBS, name) for seed in range(8) for name in ("everything", "dora")])
    assert probe.engine.metrics().adapters.slots == slots, "the network is not compiled again and again"


def test_slots_that_have_no_room_beside_those_in_use_wait_for_them(files, whole):
    """Levels of ranks would have to change under the adapter that runs, or there is one slot only."""
    for early, late, limits in (
        ("patterns", "all-linear", {}),  # rank 9 alone has one level to 16; beside rank 4, two
        ("all-linear", "patterns", {"max_loras": 1}),
    ):
        expected = whole.run([Ask(prompt(seed), LOGPROBS, name) for seed, name in enumerate((early, late))])
        probe = EngineProbe(files[0], some(files, early), **limits)
        found = run_late(probe, files, [early], [late])
        assert tokens(found) == tokens(expected)
        for request, name in zip(found, (early, late), strict=True):
            assert_first_token_is_pefts(files, request, name)


def test_limits_are_kept_and_the_others_go_on(files):
    for limits, message in (
        ({"max_lora_rank": 8}, r"adapter patterns has rank 9, above max_lora_rank \(8\)"),
        ({"adapter_memory": "150KiB"}, "adapter patterns has rank 9: engine: adapter_memory holds 12 ranks"),
    ):
        probe = EngineProbe(files[0], some(files, "all-linear"), **limits)
        running, refused = run_late(probe, files, ["all-linear"], ["patterns"])
        assert isinstance(refused.error, AdapterError)
        with pytest.raises(AdapterError, match=message):
            raise refused.error
        assert len(running.sequences[0].output_token_ids) == LOGPROBS.max_tokens
        (other,) = probe.run([Ask(prompt(1), LOGPROBS, "all-linear")])
        assert_first_token_is_pefts(files, other, "all-linear")


def test_memory_is_looked_at_before_slots_grow(files, monkeypatch):
    probe = EngineProbe(files[0], some(files, "all-linear"))
    probe.run([Ask(prompt(0), LOGPROBS, "all-linear")])
    monkeypatch.setattr("mindgen.engine.slot_planner.free_memory", lambda: 100 << 10)
    running, refused = run_late(probe, files, ["all-linear"], ["patterns"])
    assert "rank 9: a slot for it takes" in str(refused.error) and running.error is None


def test_slots_of_a_device_grow(files):
    """Also before they have any memory there."""

    def open_on_device(spec, weights, *_) -> DeviceRunner:
        return DeviceRunner(spec, weights)

    adapters = [files[1]["dora"], files[1]["patterns"]]
    expected = Probe(files[0], "float16", adapters, open_runner=open_on_device).logits([prompt(0), prompt(1)], [1, 2])
    for has_run in (False, True):
        probe = Probe(files[0], "float16", adapters[:1], open_runner=open_on_device)
        if has_run:
            probe.logits([prompt(1)], [1])
        probe.add(adapters[1], SlotLayout((16, 8)), [SlotMove(0, 1, 4)])
        np.testing.assert_array_equal(probe.logits([prompt(0), prompt(1)], [1, 2]), expected)
