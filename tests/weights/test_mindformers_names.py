"""MindFormers' later names, and checkpoints that are refused; tests/models/test_every_format.py has the others."""

import numpy as np
import pytest
import torch
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, make_model

from mindgen.errors import CheckpointError
from mindgen.weights.architecture import architectures
from mindgen.weights.folder import map_weights

PROMPT = np.random.default_rng(0).integers(3, VOCAB_SIZE, 9).tolist()
# Of mindformers/models/qwen3/utils.py, whose up_proj was linear_fc1 before it was hidden.
MEGATRON = {
    "model.embed_tokens": "embedding.word_embeddings", "self_attn.q_proj": "self_attention.linear_q",
    "self_attn.k_proj": "self_attention.linear_k", "self_attn.v_proj": "self_attention.linear_v",
    "self_attn.o_proj": "self_attention.linear_proj", "self_attn.q_norm": "self_attention.q_layernorm",
    "self_attn.k_norm": "self_attention.k_layernorm", "gate_proj": "gating", "down_proj": "linear_fc2",
    "post_attention_layernorm": "pre_mlp_layernorm", "model.norm": "decoder.final_layernorm",
    "lm_head": "output_layer", "model.layers": "decoder.layers",
}  # fmt: skip


@pytest.mark.parametrize("up_proj", ["hidden", "linear_fc1"])
def test_names_of_megatron(up_proj, tmp_path):
    folder = make_model("qwen3-untied", tmp_path / "model", torch.float32)
    expected = Probe(folder, "float32").logits([PROMPT])
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for ours, theirs in {**MEGATRON, "up_proj": up_proj}.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor
    assert not any(name.startswith("model.") or "_proj" in name.replace("linear_proj", "") for name in tensors)
    if up_proj == "hidden":
        written = architectures()["Qwen3ForCausalLM"].with_mindformers_names(map_weights(folder))
        assert written.keys() == tensors.keys()
    save_file(tensors, folder / "model.safetensors")
    np.testing.assert_array_equal(Probe(folder, "float32").logits([PROMPT]), expected)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM"])
def test_no_names_are_made_up(architecture):
    tensors = {"model.layers.0.self_attn.new_norm.weight": None}
    with pytest.raises(CheckpointError, match=r"MindFormers has no name for model.layers.0.self_attn.new_norm.weight"):
        architectures()[architecture].with_mindformers_names(tensors)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm_out.weight": tensors["model.norm.weight"].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.norm.weight is there under two names"):
        Probe(folder, "float32")
