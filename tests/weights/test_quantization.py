"""fp8 weights with scales, against torch and transformers on the same weights dequantised by torch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from exactness import assert_as_exact_as_transformers
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.cli.main import main
from mindgen.errors import CheckpointError, ModelError
from mindgen.kernels.dtypes import to_float32
from mindgen.store.convert import Conversion, convert_model, model_source
from mindgen.weights.architecture import read_model_config
from mindgen.weights.folder import map_weights
from mindgen.weights.weight_files import find_weights

BLOCK = [64, 32]  # which divides none of 96, 200 and their halves on both axes
CONFIG = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": BLOCK, "activation_scheme": "dynamic"}
PROMPTS = [[5, 9, 200, 17, 3], [33], list(range(40, 71))]


def quantise(weight: torch.Tensor, block: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """In e4m3, and the scale of each block, of which the largest value becomes 448."""
    rows, columns = weight.shape
    grid = -(-rows // block[0]), -(-columns // block[1])
    scale, result = torch.empty(grid), torch.empty(rows, columns, dtype=torch.float8_e4m3fn)
    for row, column in np.ndindex(*grid):
        part = slice(row * block[0], (row + 1) * block[0]), slice(column * block[1], (column + 1) * block[1])
        scale[row, column] = weight[part].float().abs().max() / 448
        result[part] = (weight[part].float() / scale[row, column]).to(torch.float8_e4m3fn)
    return result, scale


def dequantise(weight: torch.Tensor, scale: torch.Tensor, block: list[int]) -> torch.Tensor:
    rows, columns = weight.shape
    factors = scale.float().repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :columns]
    return weight.float() * factors


def make_pair(kind: str, folder: Path, block: list[int] = BLOCK, **config: object) -> tuple[Path, Path]:
    """A model in fp8, and the same dequantised into bfloat16."""
    plain = make_model(kind, folder / "plain", torch.bfloat16)
    packed = shutil.copytree(plain, folder / "packed")
    tensors = load_file(plain / "model.safetensors")
    in_fp8, in_bfloat16 = dict(tensors), dict(tensors)
    for name, weight in tensors.items():
        if name.endswith("_proj.weight"):
            in_fp8[name], scale = quantise(weight, block)
            in_fp8[f"{name}_scale_inv"] = scale
            in_bfloat16[name] = dequantise(in_fp8[name], scale, block).bfloat16()
    save_file(in_fp8, packed / "model.safetensors", {"format": "pt"})
    save_file(in_bfloat16, plain / "model.safetensors", {"format": "pt"})
    set_config(packed, quantization_config=CONFIG | {"weight_block_size": block, **config})
    return packed, plain


def set_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({name: each for name, each in config.items() if each is not None}))


@pytest.mark.parametrize("shape, block", [((128, 256), [128, 128]), ((130, 257), [128, 128]), ((3, 5), [2, 2])])
def test_weights_are_those_of_torch(shape, block, tmp_path):
    """Every value of e4m3, NaN included, and scales that are no powers of 2."""
    bits = torch.arange(shape[0] * shape[1]).reshape(shape) % 256
    weight = bits.to(torch.uint8).view(torch.float8_e4m3fn)
    scale = torch.rand(-(-shape[0] // block[0]), -(-shape[1] // block[1])) + 0.01
    save_file({"x.weight": weight, "x.weight_scale_inv": scale}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"quantization_config": CONFIG | {"weight_block_size": block}}))
    (tensor,) = map_weights(tmp_path).values()
    expected = dequantise(weight, scale, block)
    for dtype in ("bfloat16", "float16", "float32"):
        values = to_float32(tensor.as_dtype(dtype), dtype)
        np.testing.assert_array_equal(values, expected.to(getattr(torch, dtype)).float().numpy())
        assert (np.isnan(values) == np.isnan(expected.numpy())).all()
    np.testing.assert_array_equal(tensor.rows(1, 3).data, tensor.data[1:3])
    assert (tensor.shape, tensor.dtype, tensor.nbytes) == (shape, "bfloat16", 2 * weight.numel())


@pytest.mark.parametrize("kind, num_ranks", [("llama3-grouped-tied", 1), ("qwen3-untied", 1), ("qwen3-untied", 2)])
def test_logits_are_those_of_the_dequantised_model(kind, num_ranks, tmp_path):
    """With two ranks slices begin and end within blocks."""
    packed, plain = make_pair(kind, tmp_path)
    ours = Probe(packed, "bfloat16", num_ranks=num_ranks).logits(PROMPTS)
    if num_ranks == 1:
        np.testing.assert_array_equal(ours, Probe(plain, "bfloat16").logits(PROMPTS))
    theirs, exact = (
        np.stack([oracle_logits(oracle, prompt).numpy() for prompt in PROMPTS])
        for oracle in (load_oracle(plain, torch.bfloat16), load_oracle(plain, torch.float32))
    )
    assert ours.shape == (len(PROMPTS), VOCAB_SIZE)
    assert_as_exact_as_transformers(ours, theirs, exact)


def test_one_scale_for_a_tensor(tmp_path):
    """As AutoFP8 writes it, with scales of activations, which are not quantised here."""
    packed, plain = make_pair("llama-multi-head", tmp_path, [1000, 1000])
    tensors = load_file(packed / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_scale_inv")]:
        scale = tensors.pop(name)
        tensors[name.removesuffix("_inv")] = scale.reshape(())
        tensors[name.replace("weight_scale_inv", "input_scale")] = torch.ones(1)
    save_file(tensors, packed / "model.safetensors")
    config = {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}
    set_config(packed, quantization_config=config)
    ours, same = (Probe(folder, "bfloat16").logits(PROMPTS) for folder in (packed, plain))
    np.testing.assert_array_equal(ours, same)


def test_converted_it_is_the_dequantised_model(tmp_path):
    packed, plain = make_pair("qwen3-untied", tmp_path)
    convert_model(model_source(packed), tmp_path / "converted", Conversion("huggingface", ".safetensors", None))
    assert "quantization_config" not in json.loads((tmp_path / "converted/config.json").read_text())
    converted, expected = (load_file(folder / "model.safetensors") for folder in (tmp_path / "converted", plain))
    assert converted.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(converted[name], tensor), name


def test_what_is_said_of_it(tmp_path, capsys):
    packed, plain = make_pair("qwen3-untied", tmp_path)
    assert find_weights(packed, None, 1).choose_dtype(None) == "bfloat16"
    # As much as the dequantised ones, but for the headers and the scales.
    sizes = [find_weights(folder, None, 1).num_bytes("bfloat16") for folder in (packed, plain)]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[1]
    main(["inspect", str(packed)])
    shown = " ".join(capsys.readouterr().out.split())
    assert "float8_e4m3fn 14, bfloat16 11" in shown, shown


WEIGHT = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    "config, message",
    [
        (None, "14 tensors like '.*' are fp8, and .*config.json has no quantization_config"),
        ({"fmt": "e5m2"}, "quantization_config.fmt 'e5m2' is not served, only 'e4m3'"),
        ({"quant_method": "gptq"}, "quantization_config.quant_method 'gptq' is not served, only 'fp8'"),
        ({"weight_block_size": [64]}, "quantization_config.weight_block_size must be"),
        ({"weight_block_size": [64, 0]}, "quantization_config.weight_block_size must be"),
        ({"weight_block_size": [32, 32]}, r"the scale of .* has shape .*, expected .*blocks of 32 x 32"),
        ({"weight_block_size": None}, "quantization_config says no weight_block_size, so one scale"),
        ({"activation_scheme": "odd"}, "activation_scheme 'odd' is not served"),
        ({"kv_cache_scheme": {"bits": 8}}, "quantization_config.kv_cache_scheme .* is not known"),
    ],
)
def test_what_config_json_says_otherwise_is_refused(config, message, tmp_path):
    packed, _ = make_pair("llama-multi-head", tmp_path)
    set_config(packed, quantization_config=None if config is None else CONFIG | config)
    with pytest.raises((ModelError, CheckpointError), match=message) as raised:
        read_model_config(packed)
        map_weights(packed)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "change, message",
    [
        ({f"{WEIGHT}_scale_inv": None}, f"'{WEIGHT}' is fp8, and has no '{WEIGHT}_scale_inv' beside it"),
        ({f"{WEIGHT}_scale_inv": torch.ones(3, 4)}, r"'.*' \(200, 96\) has shape \(3, 4\), expected \(4, 3\)"),
        ({f"{WEIGHT}_scale_inv": torch.ones(4, 3, dtype=torch.int32)}, "the scale of .* is int32"),
        ({f"{WEIGHT}_scale_inv": torch.full((4, 3), float("nan"))}, "the scale of .* holds an infinity or NaN"),
        ({WEIGHT: torch.zeros(2, 3, 4).to(torch.float8_e4m3fn)}, "is fp8: only matrices are read"),
        ({WEIGHT: torch.zeros(200, 96).to(torch.float8_e5m2)}, "is float8_e5m2; served are"),
        ({"model.layers.0.mlp.down_proj.weight": torch.zeros(96, 200)}, "down_proj.weight_scale_inv"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(change, message, tmp_path):
    packed, _ = make_pair("llama-multi-head", tmp_path)
    tensors = {**load_file(packed / "model.safetensors"), **change}
    save_file({name: each for name, each in tensors.items() if each is not None}, packed / "model.safetensors")
    with pytest.raises((ModelError, CheckpointError), match=message):
        Probe(packed, "bfloat16")


def test_a_checkpoint_apart_from_its_configuration(tmp_path):
    packed, _ = make_pair("llama-multi-head", tmp_path)
    (tmp_path / "apart").mkdir()
    shutil.copy(packed / "model.safetensors", tmp_path / "apart")
    whole, apart = (find_weights(packed, where, 1).map(0) for where in (None, tmp_path / "apart"))
    np.testing.assert_array_equal(whole[WEIGHT].data, apart[WEIGHT].data)
    with pytest.raises(ModelError, match="apart/config.json has no quantization_config"):
        map_weights(tmp_path / "apart")
