"""The shape of a model, read from a Hugging Face config.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindgen.checkpoint.json_file import read_json_object
from mindgen.errors import ModelError


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding: its base, and how its frequencies are stretched ("default", "linear", "llama3")."""

    theta: float = 10000.0
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the Llama family differs in; all sizes in elements."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_position: int
    rms_norm_eps: float
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    query_key_norm: bool
    rope: RopeConfig
    eos_token_ids: tuple[int, ...]


# What sets an architecture apart from Llama: (bias on q, k and v; norm on q and k).
_ARCHITECTURES = {
    "LlamaForCausalLM": (False, False),
    "Qwen2ForCausalLM": (True, False),
    "Qwen3ForCausalLM": (False, True),
}


def read_model_config(folder: Path) -> ModelConfig:
    """The model's shape, from config.json (and the end tokens of generation_config.json).

    Raises:
        ModelError: a field is missing, of the wrong type, or asks for what mindgen does not serve.
    """
    path = folder / "config.json"
    raw = read_json_object(path, ModelError)
    architecture = (raw.get("architectures") or ["(none)"])[0]
    if architecture not in _ARCHITECTURES:
        raise ModelError(f"{path}: architecture {architecture} is not served; served are {', '.join(_ARCHITECTURES)}")
    _refuse_unserved(path, raw)
    qkv_bias, query_key_norm = _ARCHITECTURES[architecture]
    attention_bias = bool(raw.get("attention_bias", False))
    hidden_size, num_heads = _size(path, raw, "hidden_size"), _size(path, raw, "num_attention_heads")
    config = ModelConfig(
        architecture=architecture,
        vocab_size=_size(path, raw, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_size(path, raw, "intermediate_size"),
        num_layers=_size(path, raw, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_size(path, raw, "num_key_value_heads", num_heads),
        head_size=_size(path, raw, "head_dim", hidden_size // num_heads),
        max_position=_size(path, raw, "max_position_embeddings"),
        rms_norm_eps=float(raw.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        query_key_norm=query_key_norm,
        rope=_read_rope(path, raw),
        eos_token_ids=_read_eos(folder, raw),
    )
    if config.num_heads % config.num_kv_heads:
        raise ModelError(f"{path}: {config.num_heads} query heads do not divide among {config.num_kv_heads} KV heads")
    if config.head_size % 2:
        raise ModelError(f"{path}: rotary embedding needs an even head_dim, not {config.head_size}")
    return config


def _size(path: Path, raw: dict[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ModelError(f"{path}: {key} must be a positive integer, not {value!r}")
    return value


def _refuse_unserved(path: Path, raw: dict[str, Any]) -> None:
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{path}: hidden_act {raw['hidden_act']!r} is not served, only 'silu'")
    for key in ("quantization_config", "use_sliding_window"):
        if raw.get(key):
            raise ModelError(f"{path}: {key} is not served yet")


def _read_rope(path: Path, raw: dict[str, Any]) -> RopeConfig:
    # transformers 5 writes rope_parameters; before, rope_theta stood beside rope_scaling.
    scaling = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear", "llama3"):
        raise ModelError(f"{path}: rope type {kind!r} is not served; served are default, linear and llama3")
    try:
        return RopeConfig(
            theta=float(scaling.get("rope_theta", raw.get("rope_theta", 10000.0))),
            kind=kind,
            factor=float(scaling.get("factor", 1.0)),
            low_freq_factor=float(scaling.get("low_freq_factor", 1.0)),
            high_freq_factor=float(scaling.get("high_freq_factor", 4.0)),
            original_max_position=int(scaling.get("original_max_position_embeddings", 8192)),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: the rope settings are not numbers: {error}") from error


def _read_eos(folder: Path, raw: dict[str, Any]) -> tuple[int, ...]:
    generation_path = folder / "generation_config.json"
    generation = read_json_object(generation_path, ModelError) if generation_path.is_file() else {}
    eos = generation.get("eos_token_id", raw.get("eos_token_id"))
    ids = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not all(type(token_id) is int for token_id in ids):
        raise ModelError(f"{folder}: eos_token_id must be an integer or a list of integers, not {eos!r}")
    return tuple(ids)
