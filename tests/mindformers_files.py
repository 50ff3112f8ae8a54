"""Checkpoints as MindFormers' converters write them, of small models of transformers, and the YAML for one."""

import json
import shutil
from pathlib import Path
from typing import Any

import mindspore
import torch
import yaml
from safetensors.torch import load_file, save_file

from mindgen.weights.architecture import read_model_config


def write_mindformers(folder: Path, suffix: str) -> Path:
    """In the place of the folder's model.safetensors."""
    tensors = load_file(folder / "model.safetensors")
    is_gpt2 = json.loads((folder / "config.json").read_text())["model_type"] == "gpt2"
    named = mindformers_gpt2(tensors) if is_gpt2 else mindformers_llama(tensors)
    assert named.keys().isdisjoint(tensors.keys() - {"lm_head.weight"})
    (folder / "model.safetensors").unlink()
    if suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in named.items()}, folder / "model.safetensors")
    else:
        save_ckpt(named, folder / "model.ckpt")
    return folder


def save_ckpt(tensors: dict[str, torch.Tensor], path: Path) -> None:
    parameters = [{"name": name, "data": mindspore.Tensor(each.numpy())} for name, each in tensors.items()]
    mindspore.save_checkpoint(parameters, str(path))


def mindformers_llama(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names of mindformers/models/llama/convert_weight.py."""
    result = {}
    for name, tensor in tensors.items():
        for theirs, ours in {
            "embed_tokens.weight": "tok_embeddings.embedding_weight",
            "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
            "self_attn.o_proj": "attention.wo",
            "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2", "mlp.up_proj": "feed_forward.w3",
            "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
            "model.norm.": "model.norm_out.",
        }.items():  # fmt: skip
            name = name.replace(theirs, ours)
        result[name] = tensor
    return result


def mindformers_gpt2(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Under the names, and in the shapes, of mindformers/models/gpt2/convert_weight.py."""
    result = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("transformer.").replace("h.", "blocks.", 1)
        for theirs, ours in {
            "ln_1.weight": "layernorm1.gamma", "ln_1.bias": "layernorm1.beta", "ln_2.weight": "layernorm2.gamma",
            "ln_2.bias": "layernorm2.beta", "ln_f.weight": "layernorm.gamma", "ln_f.bias": "layernorm.beta",
            "wte.weight": "embedding.word_embedding.embedding_table", "attn.c_proj": "attention.projection",
            "wpe.weight": "embedding.position_embedding.embedding_table", "mlp.c_fc": "output.mapping",
            "mlp.c_proj": "output.projection",
        }.items():  # fmt: skip
            name = name.replace(theirs, ours)
        if "c_attn" not in name:
            result[f"backbone.{name}"] = tensor
            continue
        for number, part in enumerate(tensor.chunk(3, dim=-1), 1):  # (in, 3 out) -> q, k, v, each (out, in)
            dense = name.replace("attn.c_attn", f"attention.dense{number}")
            result[f"backbone.{dense}"] = (part.T if part.ndim == 2 else part).clone()
    return result


def predict_yaml(folder: Path, **changes: Any) -> Path:
    """As configs/llama2/predict_llama2_7b.yaml, beside the folder, for llama.ckpt there and the folder's tokenizer."""
    config: dict[str, Any] = {
        "seed": 0, "output_dir": "./output", "run_mode": "predict", "use_parallel": False,
        "load_checkpoint": str(folder.parent / "llama.ckpt"),
        "trainer": {"type": "CausalLanguageModelingTrainer", "model_name": "llama2_7b"},
        "parallel_config": {"model_parallel": 2, "pipeline_stage": 1},
        "context": {"mode": 0, "max_device_memory": "28GB", "device_id": 0},
        "processor": {
            "return_tensors": "ms", "type": "LlamaProcessor",
            "tokenizer": {"vocab_file": str(folder / "tokenizer.model"), "type": "LlamaTokenizer"},
        },
        "model": {
            "arch": {"type": "LlamaForCausalLM"},
            "model_config": {
                "type": "LlamaConfig", "batch_size": 1, "seq_length": 256, "hidden_size": 96, "num_layers": 2,
                "num_heads": 4, "intermediate_size": 200, "vocab_size": 340, "rms_norm_eps": 1.0e-6, "bos_token_id": 1,
                "eos_token_id": 2, "pad_token_id": 0, "ignore_token_id": -100, "compute_dtype": "float32",
                "use_past": True, "block_size": 16, "num_blocks": 64, "qkv_concat": False, "offset": 0,
                "repetition_penalty": 1, "max_decode_length": 40, "top_k": 3, "top_p": 1, "do_sample": False,
            },
        },
    }  # fmt: skip
    config["model"]["model_config"] |= changes
    path = folder.parent / "predict_llama.yaml"
    path.write_text(yaml.safe_dump({key: each for key, each in config.items() if each is not None}))
    return path


def fused(tensors, layout, num_kv_heads):
    """As mindformers/models/llama/convert_weight.py does with qkv_concat, before and since December 2024."""
    tensors = dict(tensors)
    for name in [name for name in tensors if name.endswith((".attention.wq.weight", ".attention.wq.bias"))]:
        q, k, v = (tensors.pop(name.replace("wq", each)) for each in ("wq", "wk", "wv"))
        if layout == "grouped" and name.endswith("weight"):
            rows = [each.reshape(num_kv_heads, -1, each.shape[1]) for each in (q, k, v)]
            joined = torch.cat(rows, 1).reshape(-1, q.shape[1])
        else:
            joined = torch.cat([q, k, v])
        tensors[name.replace("wq", "w_qkv")] = joined
    for name in [name for name in tensors if name.endswith((".feed_forward.w1.weight", ".feed_forward.w1.bias"))]:
        gate, up = (tensors.pop(name.replace("w1", each)) for each in ("w1", "w3"))
        in_turns = layout == "grouped" and name.endswith("weight")
        joined = torch.stack([gate, up], 1).reshape(-1, gate.shape[1]) if in_turns else torch.cat([gate, up])
        tensors[name.replace("w1", "w_gate_hidden")] = joined
    return tensors


def write_fused(folder, target, layout, says=None):
    """The model, fused in that order; its config.json says it, or another."""
    shutil.copytree(folder, target)
    tensors = mindformers_llama(load_file(folder / "model.safetensors"))
    tensors = fused(tensors, layout, read_model_config(folder).num_kv_heads)
    assert not any(".wq." in name or ".w1." in name for name in tensors)
    save_file(tensors, target / "model.safetensors")
    config = json.loads((folder / "config.json").read_text()) | {"qkv_concat_layout": says or layout}
    (target / "config.json").write_text(json.dumps(config))
    return target
