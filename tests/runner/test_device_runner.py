"""The runner of devices, all that needs no card: the CPU is the device, and has Ascend's ops from mindgen."""

import mindspore
import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe, tokens
from exactness import assert_as_exact_as_transformers
from mindspore import Tensor
from probe import Probe
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.kernels import dtypes
from mindgen.layers.causal_mask import PagedMask
from mindgen.runner.ascend import DeviceRunner
from mindgen.sampling_params import SamplingParams

ADAPTERS = ("everything", "query-value")
GREEDY = SamplingParams(temperature=0, max_tokens=16, ignore_eos=True, logprobs=2)


def open_on_device(spec, weights, *_) -> DeviceRunner:
    return DeviceRunner(spec, weights)


def prompt(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCAB_SIZE, length).tolist()


def assert_equal_but_for_rounding(found: list, expected: list) -> None:
    """Up to where two logits are as good as the same: from there on, the texts are different ones."""
    for one, other in zip(found, expected, strict=True):
        for sequence, reference in zip(one.sequences, other.sequences, strict=True):
            pairs = zip(sequence.output_token_ids, reference.output_token_ids, strict=True)
            parting = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), None)
            if parting is not None:
                best, second = sorted(reference.logprobs[parting].values(), reverse=True)[:2]
                assert best - second < 0.05
    assert sum(one == other for one, other in zip(tokens(found), tokens(expected), strict=True)) >= len(found) // 2


@pytest.mark.parametrize("kind", ["llama-biased-one-kv-head", "qwen2-tied", "qwen3-untied", "gpt2"])
def test_logits_are_those_of_transformers(kind, tmp_path):
    """Whole prompts, which FlashAttentionScore has; then steps that mix a new prompt, a chunk and decoding.

    In float16: in bfloat16 MindSpore lacks some of the ops on the CPU that only slices need.
    """
    folder = make_model(kind, tmp_path, torch.float16)
    probe = Probe(folder, "float16", open_runner=open_on_device)
    oracles = [load_oracle(folder, torch.float16), load_oracle(folder, torch.float32)]

    def assert_exact(sequences: list, ours: np.ndarray) -> None:
        seen = [sequence.token_ids[: sequence.num_computed_tokens] for sequence in sequences]
        theirs, exact = (np.stack([oracle_logits(oracle, each).numpy() for each in seen]) for oracle in oracles)
        assert_as_exact_as_transformers(ours, theirs, exact)

    running = [probe.open(prompt(seed, length)) for seed, length in enumerate((1, 9, 31))]
    assert_exact(running, probe.advance(running))
    for sequence in running:
        sequence.token_ids.append(7)
    mixed = [*running, probe.open(prompt(4, 8)), probe.open(prompt(5, 40))]
    assert_exact(mixed, probe.advance(mixed, [1, 1, 1, 8, 23]))
    for sequence in mixed[:4]:
        sequence.token_ids.append(9)
    assert_exact(mixed, probe.advance(mixed, [1, 1, 1, 1, 17]))


@pytest.fixture
def probes(tmp_path, monkeypatch):
    """Engines of the same float16 model and adapters: on the CPU, and made by calls of the second on a device."""
    folder = make_model("llama3-grouped-tied", tmp_path / "model", torch.float16)
    adapters = {name: make_adapter(name, folder, tmp_path / "adapters") for name in ADAPTERS}
    on_cpu = EngineProbe(folder, adapters, dtype="float16")

    def on_device(**limits: object) -> EngineProbe:
        monkeypatch.setattr("mindgen.engine.open_engine.make_runner", open_on_device)
        return EngineProbe(folder, adapters, dtype="float16", **limits)

    return on_cpu, on_device


def test_tokens_are_those_of_the_cpus_runner(probes):
    """With adapters that share one slot, prompts in chunks, blocks shared and copied, sequences swapped out and in."""
    on_cpu, on_device = probes
    beginning = prompt(9, 13)
    asks = [Ask([*beginning, *prompt(seed, 5 * seed)], GREEDY, (None, *ADAPTERS)[seed % 3]) for seed in range(7)]
    probe = on_device(max_loras=1, num_blocks=22, swap_space=1e-2, max_num_batched_tokens=24, max_num_seqs=8)
    assert_equal_but_for_rounding(probe.run(asks), on_cpu.run(asks))
    assert probe.num_swapped > 0


def test_forks_are_those_of_the_cpus_runner(probes):
    """They share the prompt's last block until each writes its own."""
    on_cpu, on_device = probes
    params = SamplingParams(top_k=1, n=3, max_tokens=9, ignore_eos=True, logprobs=2)
    asks = [Ask(prompt(1, 18), params, "everything"), Ask(prompt(2, 7), params)]
    found = on_device().run(asks)
    assert_equal_but_for_rounding(found, on_cpu.run(asks))
    assert all(each[0] == each[1] == each[2] for each in tokens(found))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_masks_hide_what_comes_after_a_token(dtype):
    mask = mindspore.jit(PagedMask(12, dtype))(Tensor([0, 7, 11, 3], mindspore.int32)).asnumpy()
    hidden = np.arange(12) > np.array([0, 7, 11, 3])[:, None]
    stored = np.asarray(mask).view(dtypes.STORAGE[dtype])
    np.testing.assert_allclose(dtypes.to_float32(stored, dtype), np.where(hidden, -10000, 0), rtol=0.004)
