"""A model of random bfloat16 weights in the shape of a real one, as a Hugging Face folder, and LoRA adapters beside it.

python benchmarks/random_model.py FOLDER [--shape tiny]
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
from safetensors import serialize_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mindgen.kernels import dtypes

SHAPES = {
    "qwen2.5-0.5b": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
    },
}
NUM_ADAPTERS = 8
RANK = 8
STANDARD_DEVIATION = 0.02  # what models of this family start their training from
_END_OF_TEXT = "<|endoftext|>"


def make_model(folder: Path, shape: str, seed: int = 0) -> None:
    """Writes the model and its adapters; a folder that has a config.json is left as it is."""
    if (folder / "config.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    config = _config(SHAPES[shape])
    _write_tokenizer(folder, config["vocab_size"])
    _write_tensors(folder / "model.safetensors", _model_tensors(config, generator))
    names = [f"adapter-{number}" for number in range(NUM_ADAPTERS)]
    for name in names:
        _write_adapter(folder / "adapters" / name, config, generator)
    _write_json(folder / "lora_adapter.json", {name: f"adapters/{name}" for name in names})
    _write_json(folder / "config.json", config)  # last, for it marks the folder as complete


def _config(sizes: dict[str, int]) -> dict:
    end_of_text = len(pre_tokenizers.ByteLevel.alphabet())
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "initializer_range": STANDARD_DEVIATION,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        **sizes,
    }


def linear_sizes(config: dict) -> dict[str, tuple[int, int]]:
    """(out, in) of a layer's linears."""
    hidden, intermediate = config["hidden_size"], config["intermediate_size"]
    key_value = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    return {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (key_value, hidden),
        "self_attn.v_proj": (key_value, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }


def _model_tensors(config: dict, generator: np.random.Generator) -> dict[str, np.ndarray]:
    hidden = config["hidden_size"]
    ones = dtypes.from_float32(np.ones(hidden, np.float32), "bfloat16")
    tensors = {
        "model.embed_tokens.weight": normal(generator, (config["vocab_size"], hidden)),
        "model.norm.weight": ones,
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        tensors[f"{prefix}input_layernorm.weight"] = tensors[f"{prefix}post_attention_layernorm.weight"] = ones
        for name, (size_out, size_in) in linear_sizes(config).items():
            tensors[f"{prefix}{name}.weight"] = normal(generator, (size_out, size_in))
            if name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"):
                tensors[f"{prefix}{name}.bias"] = normal(generator, (size_out,))
    return tensors


def make_adapter(folder: Path, model: Path, rank: int, seed: int = 0) -> None:
    """Writes an adapter of all linears for the model; a folder that has a configuration is left as it is."""
    if not (folder / "adapter_config.json").is_file():
        _write_adapter(folder, json.loads((model / "config.json").read_text()), np.random.default_rng(seed), rank)


def _write_adapter(folder: Path, config: dict, generator: np.random.Generator, rank: int = RANK) -> None:
    sizes, tensors = linear_sizes(config), {}
    for layer in range(config["num_hidden_layers"]):
        for name, (size_out, size_in) in sizes.items():
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = normal(generator, (rank, size_in))
            tensors[f"{prefix}.lora_B.weight"] = normal(generator, (size_out, rank))
    folder.mkdir(parents=True, exist_ok=True)
    _write_tensors(folder / "adapter_model.safetensors", tensors)
    targets = [name.split(".")[1] for name in sizes]
    _write_json(
        folder / "adapter_config.json",
        {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "target_modules": targets},
    )


def _write_tokenizer(folder: Path, vocab_size: int) -> None:
    """Bytes and an end token; ids past them are words, which no text is encoded to."""
    alphabet = [*sorted(pre_tokenizers.ByteLevel.alphabet()), _END_OF_TEXT]
    words = [
        f"\u0120word{index}" for index in range(len(alphabet), vocab_size)
    ]  # with a space, as byte-level BPE has it
    vocab = {token: index for index, token in enumerate(alphabet + words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([_END_OF_TEXT])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": _END_OF_TEXT, "eos_token": _END_OF_TEXT},
    )


def normal(generator: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    values = generator.standard_normal(shape, dtype=np.float32) * np.float32(STANDARD_DEVIATION)
    return dtypes.from_float32(values, "bfloat16")


def _write_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    entries = {
        name: {"dtype": "bfloat16", "shape": list(bits.shape), "data": bits.tobytes()} for name, bits in tensors.items()
    }
    partial = path.with_suffix(".partial")
    serialize_file(entries, str(partial), {"format": "pt"})
    os.replace(partial, path)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.shape)


if __name__ == "__main__":
    main()
