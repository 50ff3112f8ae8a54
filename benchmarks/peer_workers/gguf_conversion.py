"""A Qwen2 checkpoint in bfloat16 as a GGUF file, without a tokenizer."""

import json
import os
from pathlib import Path

import numpy as np


def convert_to_gguf(folder: Path, target: Path) -> None:
    import gguf

    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "qwen2":
        raise ValueError(f"only qwen2 is converted to GGUF, not {config['model_type']}")
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(str(partial), "qwen2")
    num_layers = config["num_hidden_layers"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(num_layers)
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_tokenizer_model("no_vocab")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, num_layers)
    for name, bits in _read_bfloat16(folder / "model.safetensors").items():
        gguf_name = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if bits.ndim == 1:  # llama.cpp wants norms and biases in float32
            writer.add_tensor(gguf_name, (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(gguf_name, bits.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(partial, target)


def _read_bfloat16(path: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file as their bits."""
    content = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = json.loads(content[8:start].tobytes())
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        if entry["dtype"] != "BF16":
            raise ValueError(f"{path}: {name} is {entry['dtype']}, not BF16")
        first, last = entry["data_offsets"]
        tensors[name] = np.array(content[start + first : start + last]).view(np.uint16).reshape(entry["shape"])
    return tensors
