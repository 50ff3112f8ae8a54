"""THUDM's GLM checkpoints, and MindFormers' of them, are the same models as those of transformers' GlmForCausalLM."""

import json
import shutil

import mindspore
import numpy as np
import pytest
import torch
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB_SIZE, load_oracle, make_model, oracle_logits

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.tools.merge import merge_adapter
from mindgen.errors import CheckpointError, ModelError
from mindgen.weights.architecture import read_model_config

PROMPTS = [np.random.default_rng(0).integers(3, VOCAB_SIZE, length).tolist() for length in (9, 21)]
HEADS, KV_HEADS, HEAD_SIZE = 6, 2, 16
# transformers' convert_glm_weights_to_hf.py, the other way round.
NAMES = {
    "model.embed_tokens": "transformer.embedding.word_embeddings", "model.norm": "transformer.encoder.final_layernorm",
    "lm_head": "transformer.output_layer", "model.layers": "transformer.encoder.layers",
    "self_attn.o_proj": "self_attention.dense", "mlp.gate_up_proj": "mlp.dense_h_to_4h",
    "mlp.down_proj": "mlp.dense_4h_to_h",
}  # fmt: skip
CONFIG = {
    "architectures": ["ChatGLMModel"], "model_type": "chatglm", "add_bias_linear": False, "add_qkv_bias": True,
    "apply_residual_connection_post_layernorm": False, "ffn_hidden_size": 200, "hidden_size": 96,
    "kv_channels": HEAD_SIZE, "layernorm_epsilon": 1.5625e-07, "multi_query_attention": True,
    "multi_query_group_num": KV_HEADS, "num_attention_heads": HEADS, "num_layers": 2, "original_rope": True,
    "padded_vocab_size": VOCAB_SIZE, "post_layer_norm": True, "rmsnorm": True, "rope_ratio": 1, "seq_length": 256,
    "tie_word_embeddings": False, "torch_dtype": "float32", "vocab_size": VOCAB_SIZE, "eos_token_id": [2],
    "pre_seq_len": None, "quantization_bit": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model("glm", tmp_path_factory.mktemp("glm") / "model", torch.float32)


@pytest.fixture(scope="module")
def expected(model):
    return Probe(model, "float32").logits(PROMPTS)


def original(model):
    """The tensors as THUDM has them."""
    tensors = load_file(model / "model.safetensors")
    for name in [name for name in tensors if "q_proj" in name]:
        parts = [tensors.pop(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
        tensors[name.replace("self_attn.q_proj", "self_attention.query_key_value")] = torch.cat(parts)
    renamed = {}
    for name, tensor in tensors.items():
        for ours, theirs in NAMES.items():
            name = name.replace(ours, theirs)
        renamed[name] = tensor
    assert not any(name.startswith("model.") or "_proj" in name for name in renamed)
    return renamed


def rearranged(tensor):
    """rearrange_w and rearrange_b of MindFormers."""
    heads = tensor.reshape(-1, HEAD_SIZE, *tensor.shape[1:])
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], 1).reshape(tensor.shape)


def mindformers(tensors, qkv_concat, mlp_concat, use_rearrange_rope):
    """As mindformers/models/glm2/convert_weight.py."""
    result = {}
    for name, tensor in tensors.items():
        if "query_key_value" in name:
            q, k, v = torch.split(tensor, [HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE, KV_HEADS * HEAD_SIZE])
            q, k = (rearranged(each) for each in (q, k)) if use_rearrange_rope else (q, k)
            parts = {"query_key_value": torch.cat([q, k, v])} if qkv_concat else {"wq": q, "wk": k, "wv": v}
            result |= {name.replace("query_key_value", part): each for part, each in parts.items()}
        elif "dense_h_to_4h" in name and not mlp_concat:
            for part, each in zip(("dense_left", "dense_right"), tensor.chunk(2), strict=True):
                result[name.replace("dense_h_to_4h", part)] = each
        else:
            result[name.replace("word_embeddings.weight", "embedding_weight")] = tensor
    return result


def write(folder, tensors, **changes):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("name", ["ChatGLMModel", "ChatGLMForConditionalGeneration"])
def test_original_names(name, model, expected, tmp_path):
    extra = {"transformer.rotary_pos_emb.inv_freq": torch.ones(4)}
    folder = write(tmp_path / "original", original(model) | extra, architectures=[name])
    np.testing.assert_array_equal(Probe(folder, "float32").logits(PROMPTS), expected)


@pytest.mark.parametrize(
    "forms", [(True, True, False), (False, False, False), (False, True, True), (True, False, True)], ids=str
)
def test_mindformers_forms(forms, model, expected, tmp_path):
    tensors = mindformers(original(model), *forms)
    folder = write(tmp_path / "mindformers", {"unused": torch.ones(1)}, use_rearrange_rope=forms[2])
    (folder / "model.safetensors").unlink()
    parameters = [{"name": name, "data": mindspore.Tensor(each.numpy())} for name, each in tensors.items()]
    mindspore.save_checkpoint(parameters, str(folder / "model.ckpt"))
    np.testing.assert_allclose(Probe(folder, "float32").logits(PROMPTS), expected, atol=1e-5)


def test_rope_ratio_multiplies_the_base(model, tmp_path):
    folder = write(tmp_path / "original", original(model), rope_ratio=50)
    like = shutil.copytree(model, tmp_path / "like")
    config = json.loads((like / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 500000.0
    (like / "config.json").write_text(json.dumps(config))
    oracle = load_oracle(like, torch.float32)
    ours = Probe(folder, "float32").logits(PROMPTS)
    np.testing.assert_allclose(ours, [oracle_logits(oracle, prompt).numpy() for prompt in PROMPTS], atol=1e-4)


FUSED = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
APART = ["wq", "wv", "dense", "dense_left", "dense_right", "dense_4h_to_h"]
PEFT, MINDPET = ("lora_A.weight", "lora_B.weight"), ("mindpet_delta_lora_a", "mindpet_delta_lora_b")


@pytest.mark.slow
@pytest.mark.parametrize("halves, targets", [(PEFT, FUSED), (MINDPET, FUSED), (MINDPET, APART)])
def test_adapters_equal_their_merge(halves, targets, model, tmp_path):
    tensors = original(model) if targets is FUSED else mindformers(original(model), False, False, False)
    folder, adapter = write(tmp_path / "original", tensors), tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": targets}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    generator, lora, merged = torch.Generator().manual_seed(0), {}, dict(tensors)
    for name, tensor in tensors.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and module.endswith(tuple(f".{target}" for target in targets)):
            a = 0.2 * torch.randn(4, tensor.shape[1], generator=generator)
            b = 0.2 * torch.randn(tensor.shape[0], 4, generator=generator)
            prefix = "base_model.model." if halves[0].startswith("lora_A") else ""
            lora |= {f"{prefix}{module}.{halves[0]}": a, f"{prefix}{module}.{halves[1]}": b}
            merged[name] = tensor + 2.0 * b @ a
    assert len(lora) == 2 * 2 * len(targets)
    save_file(lora, adapter / "adapter_model.safetensors")
    ours = Probe(folder, "float32", [adapter]).logits(PROMPTS, [1, 1])
    theirs = Probe(write(tmp_path / "by_hand", merged), "float32").logits(PROMPTS)
    if targets is FUSED:
        merge_adapter(folder, read_adapter(adapter), tmp_path / "merged")
        for name, tensor in load_file(tmp_path / "merged" / "model.safetensors").items():
            torch.testing.assert_close(tensor, merged[name])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    assert np.abs(ours - Probe(folder, "float32").logits(PROMPTS)).max() > 0.01


def test_what_is_refused(model, tmp_path):
    tensors = original(model)
    folder = write(tmp_path / "original", tensors)
    for changes, message in [
        ({"post_layer_norm": False}, "post_layer_norm False is not served, only True"),
        ({"quantization_bit": 4}, "quantization_bit 4 is not served, only 0"),
        ({"ffn_hidden_size": None}, "ffn_hidden_size must be a valid integer, not None"),
        ({"kv_channels": 6}, "3 of a head's 6 dimensions would be rotated, and they go in pairs"),
    ]:
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))
        with pytest.raises(ModelError, match=message):
            read_model_config(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"multi_query_group_num": 3}))
    with pytest.raises(CheckpointError, match=r"query_key_value.bias has shape \(160,\), config.json asks for 192"):
        Probe(folder, "float32")
