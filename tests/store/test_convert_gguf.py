"""`mindgen convert --format gguf`: the gguf package and transformers read the same model, and so does mindgen."""

import json
import math

import gguf
import numpy as np
import pytest
import torch
import transformers
from gguf_models import rounded_oracle, write_gguf
from probe import Probe
from safetensors.numpy import load_file, save_file
from tiny_models import KINDS as KINDS_OF_MODELS
from tiny_models import load_oracle, make_model, oracle_logits
from tiny_tokenizers import make_tokenizer

from mindgen.cli.main import main
from mindgen.store.find_model import find_model
from mindgen.weights.folder import map_weights
from mindgen.weights.formats.gguf_layout import pack_q8_0

SIZES = {"vocab_size": 352, "intermediate_size": 192}
KINDS = ["llama-multi-head", "llama3-grouped-tied", "mistral", "qwen2-tied", "qwen3-untied", "gpt2", "gpt2-untied"]
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "Q8_0": "q8_0"}
PROMPT = np.random.default_rng(0).integers(3, SIZES["vocab_size"], 9).tolist()
pytestmark = pytest.mark.usefixtures("own_cache")


def make_small(kind, folder, **sizes):
    sizes = {**SIZES, **sizes}
    if kind.startswith("gpt2"):
        sizes["n_inner"] = sizes.pop("intermediate_size")
    return make_tokenizer("byte_level_bpe", make_model(kind, folder, torch.float32, **sizes))


def convert(source, target, *flags):
    assert main(["convert", str(source), "--output", str(target), *flags]) == 0
    return target


def to_gguf(source, target, quantization="F16"):
    return convert(source, target, "--format", "gguf", "--dtype", DTYPES[quantization])


def read(path):
    reader = gguf.GGUFReader(path)
    return {each.name: (each.tensor_type.name, tuple(each.shape), np.array(each.data)) for each in reader.tensors}


@pytest.mark.parametrize(
    "kind, quantization",
    [(kind, quantization) for kind in KINDS for quantization in ("F16", "Q8_0")] + [("gpt2", "F32"), ("gpt2", "BF16")],
)
def test_tensors_are_those_that_the_gguf_package_writes(kind, quantization, tmp_path):
    """Its names, llama.cpp's order of rows, and the same bytes."""
    model = make_small(kind, tmp_path / "model")
    ours = read(to_gguf(model, tmp_path / "ours.gguf", quantization))
    theirs = read(write_gguf(model, tmp_path / "theirs.gguf", quantization))
    factors = ours.pop("rope_freqs.weight", None)
    assert (factors is not None) == (kind == "llama3-grouped-tied")
    assert ours.keys() == theirs.keys()
    for name, (dtype, shape, data) in theirs.items():
        assert ours[name][:2] == (dtype, shape), name
        np.testing.assert_array_equal(ours[name][2].reshape(-1).view(np.uint8), data.reshape(-1).view(np.uint8), name)


@pytest.mark.parametrize("kind", ["llama-multi-head", "qwen2-tied", "qwen3-untied", "gpt2"])
def test_transformers_reads_the_same_model(kind, tmp_path, monkeypatch):
    """Of sizes that it does not read in a GGUF file those that it assumes."""
    monkeypatch.setitem(KINDS_OF_MODELS, "qwen3-untied", (transformers.Qwen3Config, 2, 1, 128, {}))
    sizes = {"intermediate_size": 4 * 96, "max_position_embeddings": 1024} if kind == "gpt2" else {}
    model = make_small(kind, tmp_path / "model", **sizes)
    path = to_gguf(model, tmp_path / "made") / "model.gguf"
    named = {"gguf_file": path.name, "dtype": torch.float32}
    theirs = transformers.AutoModelForCausalLM.from_pretrained(path.parent, **named).eval()
    expected = oracle_logits(rounded_oracle(model, "F16"), PROMPT)
    np.testing.assert_allclose(oracle_logits(theirs, PROMPT), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "kind, quantization",
    [("llama3-grouped-tied", "F16"), ("llama-multi-head", "Q8_0"), ("qwen3-untied", "Q8_0"), ("gpt2-untied", "F16")],
)
def test_mindgen_reads_the_same_model(kind, quantization, tmp_path):
    model = make_small(kind, tmp_path / "model")
    made = to_gguf(model, tmp_path / "made", quantization)
    expected = oracle_logits(rounded_oracle(model, quantization), PROMPT)
    np.testing.assert_allclose(Probe(find_model(made), "float32").logits([PROMPT])[0], expected, rtol=3e-4, atol=3e-4)


def test_rope_that_is_scaled_by_one_factor(tmp_path):
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0}
    model = make_small("llama-multi-head", tmp_path / "model", rope_parameters=rope)
    made = to_gguf(model, tmp_path / "made", "F32")
    expected = oracle_logits(load_oracle(model, torch.float32), PROMPT)
    np.testing.assert_allclose(Probe(find_model(made), "float32").logits([PROMPT])[0], expected, rtol=1e-4, atol=1e-4)


def factors_of_llama_cpp(rope, head_size):
    """As its convert_hf_to_gguf.py has them, in torch."""
    base, factor, original = rope["rope_theta"], rope["factor"], rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    factors = []
    for frequency in 1.0 / (base ** (torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)):
        wavelength = 2 * math.pi / frequency
        if wavelength < original / high:
            factors.append(1.0)
        elif wavelength > original / low:
            factors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return torch.tensor(factors, dtype=torch.float32).numpy()


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_rope_of_llama_3_there_and_back(head_dim, factor, tmp_path):
    """Its rule becomes factors, and these the rule, which transformers has."""
    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": factor, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
    }  # fmt: skip
    sizes = {"num_attention_heads": 1, "num_key_value_heads": 1, "num_hidden_layers": 1}
    model = make_small("llama-multi-head", tmp_path / "model", rope_parameters=rope, **sizes)
    config = json.loads((model / "config.json").read_text())
    shape = {f"model.layers.0.self_attn.{part}_proj.weight": (head_dim, 96) for part in "qkv"}
    shape["model.layers.0.self_attn.o_proj.weight"] = (96, head_dim)
    tensors = load_file(model / "model.safetensors")
    save_file(tensors | {name: np.ones(each, np.float32) for name, each in shape.items()}, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps(config | {"head_dim": head_dim}))
    path = to_gguf(model, tmp_path / "made.gguf")
    np.testing.assert_array_equal(read(path)["rope_freqs.weight"][2], factors_of_llama_cpp(rope, head_dim))
    back = json.loads((convert(path, tmp_path / "back") / "config.json").read_text())
    assert back["rope_scaling"] | {"rope_theta": back["rope_theta"]} == rope


@pytest.mark.parametrize(
    "kind, quantization",
    [
        ("llama3-grouped-tied", "F16"),
        ("qwen2-tied", "BF16"),
        ("qwen3-untied", "F32"),
        ("gpt2-untied", "F16"),
        ("gpt2-untied", "F32"),
    ],
)
def test_round_trips_are_exact(kind, quantization, tmp_path):
    """GGUF to GGUF, and over a folder of Hugging Face, under MindFormers' names or its own."""
    model = make_small(kind, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"_name_or_path": "someone/Some-Model-1B"}))
    first = to_gguf(model, tmp_path / "first.gguf", quantization).read_bytes()
    folder = convert(tmp_path / "first.gguf", tmp_path / "folder")
    ours, theirs = map_weights(folder), map_weights(model)
    assert ours.keys() == theirs.keys()
    if quantization == "F32":
        assert all(np.array_equal(ours[name].data, theirs[name].data) for name in theirs)
        load_oracle_of(folder, kind)
    mindformers = convert(tmp_path / "first.gguf", tmp_path / "mf", "--names", "mindformers", "--format", "ckpt")
    for place, source in enumerate((tmp_path / "first.gguf", folder, mindformers)):
        again = convert(source, tmp_path / f"again{place}.gguf", "--format", "gguf")
        assert again.read_bytes() == first


def load_oracle_of(folder, kind):
    """transformers takes the folder with all its tensors, unless it has GGUF's factors."""
    if kind != "llama3-grouped-tied":
        _, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert not any(report.values()), report


def test_rows_that_are_no_whole_blocks_become_f16(tmp_path):
    model = make_small("llama-biased-one-kv-head", tmp_path / "model")
    types = {name: kind for name, (kind, *_) in read(to_gguf(model, tmp_path / "made.gguf", "Q8_0")).items()}
    assert types["blk.0.ffn_down.weight"] == "Q8_0" and types["blk.0.ffn_up.weight"] == "F16"
    assert types["blk.0.attn_q.bias"] == "F32" and types["output_norm.weight"] == "F32"


def test_q8_0_of_every_kind_of_block():
    rng = np.random.default_rng(0)
    rows = rng.normal(0, 1, (64, 96)).astype(np.float32) * 10.0 ** rng.integers(-12, 6, (64, 1))
    rows[0] = 0
    rows[1, :32] = np.arange(32) * 0.5 + 111.5  # whose scale is 1, with halves to round
    rows[1, 31] = 127
    rows[2, 5] = -127.0
    rows[3] = 1e-42  # subnormal
    rows = rows.astype(np.float32)
    with np.errstate(all="ignore"):
        expected = gguf.quants.quantize(rows, gguf.GGMLQuantizationType.Q8_0)
        np.testing.assert_array_equal(pack_q8_0(rows), expected)


@pytest.mark.parametrize(
    "kind, changes, flags, message",
    [
        ("gpt2", {"activation_function": "gelu"}, [], "no place for activation_function 'gelu'"),
        ("gpt2", {}, ["--names", "mindformers"], "GGUF has names of its own, and none of mindformers"),
        ("qwen2-tied", {"tie_word_embeddings": False}, [], "has no lm_head.weight, and config.json does not tie"),
        ("qwen2-tied", {"eos_token_id": [2, 3, 4, 5]}, [], "has places for 3 tokens that end an output"),
    ],
)
def test_what_gguf_has_no_place_for(kind, changes, flags, message, tmp_path, capsys):
    model = make_small(kind, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))
    (model / "generation_config.json").unlink()
    capsys.readouterr()
    assert main(["convert", str(model), "--output", str(tmp_path / "x"), "--format", "gguf", *flags]) != 0
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"model"}


def test_values_that_a_dtype_cannot_hold(tmp_path, capsys):
    model = make_small("qwen2-tied", tmp_path / "model")
    state = transformers.AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        state.model.layers[1].mlp.up_proj.weight[3, 7] = 1e9
    state.save_pretrained(model)
    for dtype, message in (("float16", "float16 cannot hold"), ("q8_0", "Q8_0 cannot hold")):
        flags = ["--format", "gguf", "--dtype", dtype]
        assert main(["convert", str(model), "--output", str(tmp_path / "x"), *flags]) == 1
        assert f"blk.1.ffn_up.weight: there are values that {message}" in capsys.readouterr().err
        assert {each.name for each in tmp_path.iterdir()} == {"model"}
