"""Llama checkpoints of a wanted size, of random weights: a folder with config.json and one file of weights.

All layers have the same weights, so that gigabytes are made in seconds.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from random_model import STANDARD_DEVIATION, linear_sizes, normal

from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import format_of

# As of TinyLlama-1.1B.
_SHAPE = {
    "vocab_size": 32000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
_HIDDEN = _SHAPE["hidden_size"]
_TABLES = dict.fromkeys(("model.embed_tokens", "lm_head"), (_SHAPE["vocab_size"], _HIDDEN))
_LINEARS = linear_sizes(_SHAPE)
_NORMS = ("input_layernorm", "post_attention_layernorm")


def make_safetensors(folder: Path, file_bytes: int) -> Path:
    """In bfloat16, of about so many bytes; what is there already is left as it is. Returns the file."""
    path = folder / "model.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        generator, layers = np.random.default_rng(0), _num_layers(file_bytes / 2)
        shapes = {**_TABLES, **_LINEARS}
        values = {name: MappedTensor("bfloat16", normal(generator, shape)) for name, shape in shapes.items()}
        norm = MappedTensor("bfloat16", np.full(_HIDDEN, 0x3F80, np.uint16))
        tensors = {name: norm if "norm" in name else values[_of_any_layer(name)] for name in _names(layers)}
        kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        write = format_of(path).write
        assert write is not None
        write(path, kinds, iter(tensors.items()), {})
        _write_config(folder, layers)
    return path


def make_gguf(folder: Path, file_bytes: int) -> Path:
    """With matrices in Q8_0, of about so many bytes; what is there already is left as it is. Returns the file."""
    path = folder / "model.gguf"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        kind = gguf.GGMLQuantizationType.Q8_0
        block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        generator, layers = np.random.default_rng(0), _num_layers(file_bytes * block / block_bytes)
        values = {}
        for name, (rows, columns) in {**_TABLES, **_LINEARS}.items():
            blocks = generator.integers(0, 256, (rows, columns // block, block_bytes), np.uint8)
            blocks[..., :2] = np.array([STANDARD_DEVIATION / 74], np.float16).view(np.uint8)  # 74: of -128 to 127
            values[name] = blocks.reshape(rows, -1)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_head_count(_SHAPE["num_attention_heads"])
        writer.add_head_count_kv(_SHAPE["num_key_value_heads"])
        own_names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
        for name in _names(layers):
            own_name = own_names.get_name(name, try_suffixes=(".weight",))
            if "norm" in name:
                writer.add_tensor(own_name, np.ones(_HIDDEN, np.float32))
            else:
                writer.add_tensor(own_name, values[_of_any_layer(name)], raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        _write_config(folder, layers)
    return path


def _num_layers(elements: float) -> int:
    tables, layer = (sum(rows * columns for rows, columns in each.values()) for each in (_TABLES, _LINEARS))
    return max(1, round((elements - tables) / layer))


def _names(layers: int) -> list[str]:
    modules = [*_TABLES, "model.norm"]
    modules += [f"model.layers.{layer}.{name}" for layer in range(layers) for name in (*_NORMS, *_LINEARS)]
    return [f"{module}.weight" for module in modules]


def _of_any_layer(name: str) -> str:
    """model.layers.3.mlp.up_proj.weight -> mlp.up_proj"""
    module = name.removesuffix(".weight")
    return module.split(".", 3)[3] if module.startswith("model.layers.") else module


def _write_config(folder: Path, layers: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "num_hidden_layers": layers,
        **_SHAPE,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
