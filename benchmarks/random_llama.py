"""Llama checkpoints of a wanted size, of random weights: a folder with config.json and one file of weights.

All layers have the same weights, so that gigabytes are made in seconds.
"""

import json
from pathlib import Path

import gguf
import numpy as np

from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import format_of

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCABULARY = 2048, 5632, 32, 4, 32000  # as of TinyLlama-1.1B
_KEY_VALUE = HIDDEN // HEADS * KV_HEADS
_TABLES = {"model.embed_tokens": (VOCABULARY, HIDDEN), "lm_head": (VOCABULARY, HIDDEN)}
_LINEARS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (_KEY_VALUE, HIDDEN),
    "self_attn.v_proj": (_KEY_VALUE, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
    "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
_NORMS = ("input_layernorm", "post_attention_layernorm")
_DEVIATION = 0.02


def make_safetensors(folder: Path, file_bytes: int) -> Path:
    """In bfloat16, of about so many bytes; what is there already is left as it is. Returns the file."""
    path = folder / "model.safetensors"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        generator, layers = np.random.default_rng(0), _num_layers(file_bytes / 2)
        shapes = {**_TABLES, **_LINEARS}
        values = {name: _bfloat16(generator, shape) for name, shape in shapes.items()}
        norm = MappedTensor("bfloat16", np.full(HIDDEN, 0x3F80, np.uint16))
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
            blocks[..., :2] = np.array([_DEVIATION / 74], np.float16).view(np.uint8)  # 74: of -128 to 127
            values[name] = blocks.reshape(rows, -1)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(KV_HEADS)
        own_names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
        for name in _names(layers):
            own_name = own_names.get_name(name, try_suffixes=(".weight",))
            if "norm" in name:
                writer.add_tensor(own_name, np.ones(HIDDEN, np.float32))
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


def _bfloat16(generator: np.random.Generator, shape: tuple[int, int]) -> MappedTensor:
    values = generator.standard_normal(shape, np.float32) * np.float32(_DEVIATION)
    return MappedTensor("bfloat16", (values.view(np.uint32) >> 16).astype(np.uint16))


def _write_config(folder: Path, layers: int) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
