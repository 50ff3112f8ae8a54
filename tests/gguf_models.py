"""GGUF files of small models, written by the gguf package as llama.cpp's converter does."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.numpy import load_file
from tiny_models import load_oracle

ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2, "qwen3": gguf.MODEL_ARCH.QWEN3,
    "gpt2": gguf.MODEL_ARCH.GPT2,
}  # fmt: skip
# Where the scales of a block lie, and how large they are, so that weights are about 0.1.
_SCALES = {"Q4_K": {0: 3e-4, 2: 2e-3}, "Q5_K": {0: 1.5e-4, 2: 2e-3}, "Q6_K": {208: 5e-5}}
_TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def write_gguf(
    folder: Path,
    path: Path,
    quantization: str = "F32",
    settings: dict[str, Any] | None = None,
    extra: dict[str, np.ndarray] | None = None,
    split: int = 0,
) -> Path:
    """The float32 Hugging Face model in the folder, with its matrices in that type.

    settings: of the metadata, in the place of what the model says. extra: more tensors. split: how many a file has.
    """
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    kind, settings = config["model_type"], settings or {}
    kind = "llama" if kind == "mistral" else kind  # as llama.cpp's converter calls it
    writer = gguf.GGUFWriter(path, settings.get("general.architecture", kind), split_max_tensors=split)
    num_layers = config.get("num_hidden_layers", config.get("n_layer"))
    num_heads = config.get("num_attention_heads", config.get("n_head"))
    num_kv_heads = config.get("num_key_value_heads", num_heads)
    _write_settings(writer, config, num_layers, num_heads, num_kv_heads)
    _write_tokens(writer, config["vocab_size"], settings)
    for key, value in settings.items():
        if key.startswith("llama."):
            _add(writer, key, value)
    for name, values in (extra or {}).items():
        add_tensor(writer, name, values, "F32")
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], num_layers)
    for name, values in tensors.items():
        values = values.T if name.endswith(_TRANSPOSED) and kind == "gpt2" else values
        if kind == "llama" and ".q_proj." in name:
            values = _permuted(values, num_heads)
        if kind == "llama" and ".k_proj." in name:
            values = _permuted(values, num_kv_heads)
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert own is not None, name
        own_type = quantization if values.ndim > 1 and "position" not in own else "F32"
        add_tensor(writer, own, np.ascontiguousarray(values), own_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@torch.no_grad()
def rounded_oracle(folder: Path, quantization: str) -> torch.nn.Module:
    """transformers' model of the folder with matrices as that type holds them."""
    model = load_oracle(folder, torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 and "wpe" not in name:
            is_transposed = name.endswith(_TRANSPOSED) and model.config.model_type == "gpt2"
            values = np.ascontiguousarray(parameter.numpy().T if is_transposed else parameter.numpy())
            values = rounded(values, quantization)
            parameter.copy_(torch.from_numpy(values.T.copy() if is_transposed else values))
    return model


def rounded(values: np.ndarray, quantization: str) -> np.ndarray:
    kind = gguf.GGMLQuantizationType[quantization]
    return np.asarray(gguf.quants.dequantize(packed(values, quantization), kind), np.float32)


def packed(values: np.ndarray, quantization: str) -> np.ndarray:
    """The values in that type; in those that the gguf package cannot write, random ones that depend on the values."""
    kind = gguf.GGMLQuantizationType[quantization]
    if quantization not in _SCALES:
        return np.asarray(gguf.quants.quantize(values, kind))
    block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(np.ascontiguousarray(values).view(np.uint32).reshape(-1)[:4].tolist())
    blocks = rng.integers(0, 256, (*values.shape[:-1], values.shape[-1] // block, block_bytes), np.uint8)
    for place, scale in _SCALES[quantization].items():
        scales = (rng.uniform(0.5, 1, blocks.shape[:-1]) * scale).astype(np.float16)
        blocks[..., place : place + 2] = scales[..., None].view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1)


def add_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, quantization: str) -> None:
    kind = gguf.GGMLQuantizationType[quantization]
    if quantization == "F32":
        writer.add_tensor(name, values.astype(np.float32))
    elif quantization == "F16":
        writer.add_tensor(name, values.astype(np.float16))
    else:
        writer.add_tensor(name, packed(values, quantization), raw_dtype=kind)


def _permuted(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Halves of each head to pairs, as llama.cpp's converter does for Llama."""
    pairs = values.reshape(num_heads, 2, values.shape[0] // num_heads // 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _write_settings(
    writer: gguf.GGUFWriter, config: dict[str, Any], num_layers: int, num_heads: int, num_kv_heads: int
) -> None:
    writer.add_block_count(num_layers)
    writer.add_head_count(num_heads)
    writer.add_embedding_length(config.get("hidden_size", config.get("n_embd")))
    writer.add_context_length(config.get("max_position_embeddings", config.get("n_positions")))
    writer.add_feed_forward_length(config.get("n_inner", config.get("intermediate_size")))
    if config["model_type"] == "gpt2":
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
        return
    writer.add_head_count_kv(num_kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if "head_dim" in config:
        writer.add_key_length(config["head_dim"])
        writer.add_value_length(config["head_dim"])


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    add = {int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}[type(value)]
    add(key, value)


def _write_tokens(writer: gguf.GGUFWriter, count: int, settings: dict[str, Any]) -> None:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    alphabet = [chr(byte) for byte in printable] + [chr(0x100 + place) for place in range(len(others))]
    tokens = ["<unk>", "<s>", "</s>", *alphabet]
    tokens += [f"<extra_{number}>" for number in range(len(tokens), count)]
    writer.add_tokenizer_model(settings.get("tokenizer.ggml.model", "gpt2"))
    writer.add_tokenizer_pre(settings.get("tokenizer.ggml.pre", "gpt-2"))
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges([f"{alphabet[64]} {alphabet[65]}"] if f"{alphabet[64]}{alphabet[65]}" in tokens else [])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
