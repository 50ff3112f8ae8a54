"""Checkpoints with MindFormers' names hold the same models; names as in its own converters."""

import mindspore
import numpy as np
import pytest
import torch
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, make_model

from mindgen.errors import CheckpointError

PROMPT = np.random.default_rng(0).integers(3, VOCAB_SIZE, 9).tolist()
NAMES = {
    "model.embed_tokens.weight": "model.tok_embeddings.embedding_weight",
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
    "model.norm.": "model.norm_out.",
}  # fmt: skip


# Of mindformers/models/qwen3/utils.py, whose up_proj was linear_fc1 before it was hidden.
MEGATRON = {
    "model.embed_tokens": "embedding.word_embeddings", "self_attn.q_proj": "self_attention.linear_q",
    "self_attn.k_proj": "self_attention.linear_k", "self_attn.v_proj": "self_attention.linear_v",
    "self_attn.o_proj": "self_attention.linear_proj", "self_attn.q_norm": "self_attention.q_layernorm",
    "self_attn.k_norm": "self_attention.k_layernorm", "gate_proj": "gating", "down_proj": "linear_fc2",
    "post_attention_layernorm": "pre_mlp_layernorm", "model.norm": "decoder.final_layernorm",
    "lm_head": "output_layer", "model.layers": "decoder.layers",
}  # fmt: skip


def renamed(tensors, names=NAMES):
    """As mindformers/models/llama/convert_weight.py does."""
    result = {}
    for name, tensor in tensors.items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        result[name] = tensor
    return result


@pytest.mark.parametrize("kind", ["llama-multi-head", "qwen2-tied", "llama-biased-one-kv-head"])
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_the_same_model(kind, suffix, tmp_path):
    folder = make_model(kind, tmp_path / "model", torch.float32)
    expected = Probe(folder, "float32").logits([PROMPT])
    tensors = renamed(load_file(folder / "model.safetensors"))
    assert not any("q_proj" in name or "embed_tokens" in name for name in tensors)
    (folder / "model.safetensors").unlink()
    if suffix == ".safetensors":
        save_file(tensors, folder / "model.safetensors")
    else:
        parameters = [{"name": name, "data": mindspore.Tensor(each.numpy())} for name, each in tensors.items()]
        mindspore.save_checkpoint(parameters, str(folder / "model.ckpt"))
    np.testing.assert_array_equal(Probe(folder, "float32").logits([PROMPT]), expected)


@pytest.mark.parametrize("up_proj", ["hidden", "linear_fc1"])
def test_names_of_megatron(up_proj, tmp_path):
    folder = make_model("qwen3-untied", tmp_path / "model", torch.float32)
    expected = Probe(folder, "float32").logits([PROMPT])
    tensors = renamed(load_file(folder / "model.safetensors"), MEGATRON | {"up_proj": up_proj})
    assert not any(name.startswith("model.") or "_proj" in name.replace("linear_proj", "") for name in tensors)
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(Probe(folder, "float32").logits([PROMPT]), expected)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm_out.weight": tensors["model.norm.weight"].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.norm.weight is there under two names"):
        Probe(folder, "float32")
