"""GGUF files: the models that the gguf package writes give what transformers reads from them."""

from contextlib import closing

import numpy as np
import pytest
import torch
from gguf_models import rounded_oracle, write_gguf
from peft import PeftModel
from probe import Probe
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.errors import CheckpointError, ModelError
from mindgen.layers.rotary import rotary_tables
from mindgen.store.find_model import find_model
from mindgen.weights.architecture import read_model_config
from mindgen.weights.folder import map_weights
from mindgen.weights.model_config import RopeConfig

SIZES = {"intermediate_size": 192, "n_inner": 192}  # whole blocks
KINDS = ["llama-multi-head", "qwen2-tied", "qwen3-untied", "gpt2"]
PROMPT = np.random.default_rng(0).integers(3, VOCAB_SIZE, 9).tolist()


pytestmark = pytest.mark.usefixtures("own_cache")


RARE = ("F32", "BF16", "Q4_0", "Q5_0", "Q5_1")


@pytest.mark.parametrize(
    "quantization", ["F16", "Q8_0", "Q4_1", *(pytest.param(each, marks=pytest.mark.slow) for each in RARE)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_transformers(kind, quantization, tmp_path):
    path = write_gguf(make_small(kind, tmp_path), tmp_path / "model.gguf", quantization)
    expected = oracle_logits(rounded_oracle(tmp_path / "model", quantization), PROMPT)
    ours = Probe(find_model(path), "float32").logits([PROMPT])[0]
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantization", ["Q4_K", "Q5_K", "Q6_K"])
def test_blocks_of_256(quantization, tmp_path):
    sizes = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
    model = make_model("qwen2-tied", tmp_path / "model", torch.float32, **sizes)
    path = write_gguf(model, tmp_path / "model.gguf", quantization)
    expected = oracle_logits(rounded_oracle(model, quantization), PROMPT)
    np.testing.assert_allclose(Probe(find_model(path), "float32").logits([PROMPT])[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_on_top_with_two_ranks(kind, tmp_path):
    model = make_small(kind, tmp_path)
    path = write_gguf(model, tmp_path / "model.gguf", "Q8_0")
    adapter = make_adapter("everything", model, tmp_path)
    oracle = rounded_oracle(model, "Q8_0")
    expected = [oracle_logits(oracle, PROMPT), oracle_logits(PeftModel.from_pretrained(oracle, adapter), PROMPT)]
    probe = Probe(find_model(path), "float32", [adapter], num_ranks=2)
    with closing(probe.runner):
        ours = probe.logits([PROMPT, PROMPT], [0, 1])
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)


def test_rope_factors_of_llama_3(tmp_path):
    """They are a tensor of the file: what Llama 3.1's rule makes of each frequency."""
    model = make_small("llama3-grouped-tied", tmp_path)
    rope = read_model_config(model).rope
    plain = rotary_tables(RopeConfig(rope.theta), 16, 2)[1][1, :8]
    factors = (np.arcsin(plain) / np.arcsin(rotary_tables(rope, 16, 2)[1][1, :8])).astype(np.float32)
    path = write_gguf(model, tmp_path / "model.gguf", extra={"rope_freqs.weight": factors})
    expected = oracle_logits(load_oracle(model, torch.float32), PROMPT * 9)
    np.testing.assert_allclose(Probe(find_model(path), "float32").logits([PROMPT * 9])[0], expected, atol=3e-4)


def test_files_that_are_split(tmp_path):
    model = make_small("qwen2-tied", tmp_path)
    whole = map_weights(find_model(write_gguf(model, tmp_path / "whole.gguf", "Q8_0")))
    parts = write_gguf(model, tmp_path / "parts.gguf", "Q8_0", split=9)
    files = sorted(parts.parent.glob("parts-*-of-*.gguf"))
    assert len(files) > 1
    for name in (files[0], files[-1]):
        split = map_weights(find_model(name))
        assert split.keys() == whole.keys()
        assert all(np.array_equal(split[each].data, whole[each].data) for each in whole)
    files[1].unlink()
    with pytest.raises(CheckpointError, match=f"has no {files[1].name}: .* is one of {len(files)} files"):
        find_model(files[0])


def test_a_folder_of_one_file_is_the_model(tmp_path):
    model = make_small("qwen2-tied", tmp_path)
    (tmp_path / "folder").mkdir()
    path = write_gguf(model, tmp_path / "folder" / "one.gguf", "Q8_0")
    assert find_model(path.parent) == find_model(path)
    write_gguf(model, tmp_path / "folder" / "two.gguf", "Q4_0")
    with pytest.raises(ModelError, match="has several models, one.gguf, two.gguf: name the file of one"):
        find_model(path.parent)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"llama.expert_count": 8}, "llama.expert_count 8 is not served"),
        ({"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0}, "rope type 'yarn' is not served"),
        ({"llama.rope.dimension_count": 12}, "partial_rotary_factor 0.5 is not served"),
        ({"llama.attention.sliding_window": 16}, r"a sliding_window \(16\) is not served yet"),
        ({"llama.logit_scale": 0.5}, "llama.logit_scale 0.5 is not served"),
        ({"general.architecture": "mamba"}, "architecture 'mamba' is not served; served are, the nearest first, llama"),
        ({"tokenizer.ggml.model": "bert"}, "tokenizer.ggml.model 'bert' is not served; served are gpt2 and llama"),
        ({"tokenizer.ggml.pre": "chameleon"}, "tokenizer.ggml.pre 'chameleon', .* is not served; served are"),
    ],
)
def test_what_is_not_served(settings, message, tmp_path):
    path = write_gguf(make_small("llama-multi-head", tmp_path), tmp_path / "model.gguf", settings=settings)
    with pytest.raises((ModelError, CheckpointError), match=message) as caught:
        Probe(find_model(path), "float32")
    assert "\n" not in str(caught.value)


def make_small(kind, folder, **sizes):
    own = {name: size for name, size in SIZES.items() if (name == "n_inner") == kind.startswith("gpt2")}
    return make_model(kind, folder / "model", torch.float32, **own, **sizes)
