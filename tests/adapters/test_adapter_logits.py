"""Each adapter's logits against peft and the dense merge, alone and mixed in one batch."""

import numpy as np
import pytest
import torch
from exactness import assert_as_exact_as_transformers
from peft import PeftModel
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_adapters import CONFIGS, GPT2_CONFIGS, make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

KINDS = ("llama3-grouped-tied", "qwen2-tied", "qwen3-untied", "gpt2", "glm")


@pytest.fixture(scope="module", params=KINDS)
def model(request, tmp_path_factory):
    """A model's folder and its adapters' folders by name."""
    folder = make_model(request.param, tmp_path_factory.mktemp("model"), torch.float32)
    adapters = tmp_path_factory.mktemp("adapters")
    return folder, {name: make_adapter(name, folder, adapters) for name in CONFIGS}


def prompts(count: int) -> list[list[int]]:
    generator = np.random.default_rng(1)
    return [generator.integers(3, VOCAB_SIZE, length).tolist() for length in generator.integers(1, 40, count)]


def peft_model(model, name: str, dtype: torch.dtype) -> torch.nn.Module:
    folder, adapters = model
    return PeftModel.from_pretrained(load_oracle(folder, dtype), adapters[name]).eval().to(dtype)


def peft_logits(model, name: str, dtype: torch.dtype) -> np.ndarray:
    adapted = peft_model(model, name, dtype)
    return np.stack([oracle_logits(adapted, prompt) for prompt in prompts(8)])


def test_each_adapter_equals_peft_and_the_dense_merge(model, executor):
    folder, adapters = model
    probe = Probe(folder, "float32", list(adapters.values()), executor=executor)
    base = probe.logits(prompts(2))
    for slot, name in enumerate(adapters, start=1):
        ours = probe.logits(prompts(2), [slot, slot])
        adapted = peft_model(model, name, torch.float32)
        expected = np.stack([oracle_logits(adapted, prompt) for prompt in prompts(2)])
        merged = adapted.merge_and_unload()  # W + scale * B A
        dense = np.stack([oracle_logits(merged, prompt) for prompt in prompts(2)])
        np.testing.assert_allclose(ours, expected, atol=1e-4)
        np.testing.assert_allclose(ours, dense, atol=1e-4)
        assert np.abs(ours - base).max() > 0.01


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision_is_as_exact_as_peft(model, dtype, executor):
    folder, adapters = model
    probe = Probe(folder, dtype, list(adapters.values()), executor=executor)
    ours = np.concatenate([probe.logits(prompts(8), [slot] * 8) for slot in range(1, len(adapters) + 1)])
    exact, theirs = (
        np.concatenate([peft_logits(model, name, kind) for name in adapters])
        for kind in (torch.float32, getattr(torch, dtype))
    )
    assert_as_exact_as_transformers(ours, theirs, exact)


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "bfloat16"])
def test_mixed_batch_equals_each_request_alone(model, dtype, executor):
    """Base and adapters interleaved, of different lengths, through prompts and decoding steps."""
    folder, adapters = model
    probe = Probe(folder, dtype, list(adapters.values()), executor=executor)
    slots = [2, 0, 4, 1, 3, 0, 2, 1]
    together = [probe.open(prompt, slot) for prompt, slot in zip(prompts(8), slots, strict=True)]
    alone = [probe.open(prompt, slot) for prompt, slot in zip(prompts(8), slots, strict=True)]
    for _ in range(3):
        mixed = probe.advance(together)
        single = np.concatenate([probe.advance([sequence]) for sequence in alone])
        np.testing.assert_array_equal(mixed, single)
        for first, second, row in zip(together, alone, single, strict=True):
            first.token_ids.append(int(row.argmax()))
            second.token_ids.append(int(row.argmax()))


@pytest.mark.parametrize("name", sorted(GPT2_CONFIGS.keys() - CONFIGS.keys()))
@pytest.mark.parametrize("prefix", ["", pytest.param("transformer.", marks=pytest.mark.slow)])
def test_gpt2_adapters_of_every_option_and_without_prefix(prefix, name, tmp_path):
    """Trained on the whole model, and on the model without its head."""
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    adapter = make_adapter(name, folder, tmp_path)
    expected = np.stack(
        [oracle_logits(peft_model((folder, {"A": adapter}), "A", torch.float32), p) for p in prompts(2)]
    )
    tensors = load_file(adapter / "adapter_model.safetensors")
    named = {name.replace("model.transformer.", f"model.{prefix}"): tensor for name, tensor in tensors.items()}
    save_file(named, adapter / "adapter_model.safetensors")
    np.testing.assert_allclose(Probe(folder, "float32", [adapter]).logits(prompts(2), [1, 1]), expected, atol=1e-4)


def test_base_rows_in_a_mixed_batch_are_the_base_model(model, executor):
    folder, adapters = model
    with_adapters, without = (
        Probe(folder, "float32", list(adapters.values()), executor=executor),
        Probe(folder, "float32", executor=executor),
    )
    mixed = with_adapters.logits(prompts(3), [0, 1, 0])
    np.testing.assert_array_equal(mixed[[0, 2]], without.logits(prompts(3))[[0, 2]])
