"""The networks' logits against transformers on the same weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exactness import assert_as_exact_as_transformers
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.errors import ModelError
from mindgen.kernels import plugin
from mindgen.runner.adapter_rows import AdapterInputs
from mindgen.runner.step_graph import CompiledStep, StepGraph
from mindgen.weights.weight_files import find_weights

LENGTHS = (1, 2, 7, 8, 9, 16, 31, 57)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


def prompts() -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [generator.integers(3, VOCAB_SIZE, length).tolist() for length in LENGTHS]


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_half_precision(kind, dtype, tmp_path, executor):
    torch_dtype = getattr(torch, dtype)
    folder = make_model(kind, tmp_path, torch_dtype)
    probe = Probe(folder, dtype, executor=executor)
    oracles = [load_oracle(folder, torch_dtype), load_oracle(folder, torch.float32)]
    sequences = [probe.open(prompt) for prompt in prompts()]
    for _ in range(3):  # the prompts, then two decoding steps with tokens that the oracle chose
        ours = probe.advance(sequences)
        theirs, exact = (
            np.stack([oracle_logits(oracle, sequence.token_ids).numpy() for sequence in sequences])
            for oracle in oracles
        )
        assert_as_exact_as_transformers(ours, theirs, exact)
        for sequence, row in zip(sequences, exact, strict=True):
            sequence.token_ids.append(int(row.argmax()))


def test_float32_is_exact_and_greedy_tokens_are_equal(kind, tmp_path, executor):
    folder = make_model(kind, tmp_path, torch.float32)
    probe = Probe(folder, "float32", executor=executor)
    oracle = load_oracle(folder, torch.float32)
    sequences = [probe.open(prompt) for prompt in prompts()[2:5]]
    for _ in range(64):
        ours = probe.advance(sequences)
        for sequence, row in zip(sequences, ours, strict=True):
            exact = oracle_logits(oracle, sequence.token_ids).numpy()
            assert np.abs(row - exact).max() < 1e-4
            assert row.argmax() == exact.argmax()
            sequence.token_ids.append(int(row.argmax()))


def test_checkpoint_of_another_dtype_is_converted(tmp_path, executor):
    single = make_model("qwen2-tied", tmp_path / "single", torch.float32)
    half = tmp_path / "half"
    load_oracle(single, torch.float32).to(torch.bfloat16).save_pretrained(half)
    np.testing.assert_array_equal(
        Probe(single, "bfloat16", executor=executor).logits(prompts()),
        Probe(half, "bfloat16", executor=executor).logits(prompts()),
    )


def test_float64_is_read_and_no_integers_stand_for_weights(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    wide = Path(shutil.copytree(folder, tmp_path / "wide"))
    save_file({name: tensor.double() for name, tensor in tensors.items()}, wide / "model.safetensors")
    assert find_weights(wide, None, 1).choose_dtype(None) == "float32"
    np.testing.assert_array_equal(Probe(folder, "float32").logits(prompts()), Probe(wide, "float32").logits(prompts()))
    name = "model.layers.0.self_attn.q_proj.weight"
    for kind in (torch.int8, torch.int64, torch.float8_e5m2):
        save_file({**tensors, name: tensors[name].to(kind)}, wide / "model.safetensors")
        with pytest.raises(ModelError, match=f"'{name}' is {str(kind)[6:]}; served are float32, "):
            Probe(wide, "float32")


def test_gpt2_saved_without_its_head_and_with_its_masks(tmp_path):
    folder = make_model("gpt2", tmp_path / "model", torch.bfloat16)
    tensors = load_file(folder / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    masks = {"bias": torch.ones(1, 1, 256, 256), "masked_bias": torch.tensor(-1e4)}
    kinds = [torch.bfloat16, torch.bool, torch.uint8, torch.int8]
    bare |= {
        f"h.{layer}.attn.{name}": mask.to(kinds[2 * layer + number])
        for layer in range(2)
        for number, (name, mask) in enumerate(masks.items())
    }
    shutil.copytree(folder, tmp_path / "bare")
    save_file(bare, tmp_path / "bare" / "model.safetensors")
    np.testing.assert_array_equal(
        Probe(folder, "bfloat16").logits(prompts()), Probe(tmp_path / "bare", "bfloat16").logits(prompts())
    )
    save_file({**bare, "h.0.attn.extra": torch.ones(2)}, tmp_path / "bare" / "model.safetensors")
    with pytest.raises(ModelError, match=r"1 tensors that GPT2LMHeadModel does not: \['transformer.h.0.attn.extra'\]"):
        Probe(tmp_path / "bare", "bfloat16")


@pytest.mark.parametrize("kind", ["llama3-grouped-tied", "gpt2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_whole_prompts_through_flash_attention(dtype, kind, tmp_path):
    """The graph that Ascend runs whole prompts on gives what the paged one gives, within the dtype's rounding."""
    folder = make_model(kind, tmp_path, getattr(torch, dtype))
    probe = Probe(folder, dtype)
    paged = probe.logits(prompts())
    graph = StepGraph(probe.runner._network, whole_prompts=True, adapter_inputs=AdapterInputs())
    graph.make_dynamic()
    probe.runner._graphs[False] = CompiledStep(graph, "mindgen", plugin.load())
    flash = probe.logits(prompts())
    np.testing.assert_allclose(
        flash, paged, atol=4 * np.abs(paged).max() * {"bfloat16": 2**-8, "float16": 2**-11}[dtype]
    )
