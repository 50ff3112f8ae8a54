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
    """What the networks differ in; all sizes in elements.

    Attributes:
        gated_mlp: whether it has three linears, gate, up and down, or two.
        rope: None where positions are learned.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    max_position: int
    norm_epsilon: float
    tie_word_embeddings: bool
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    gated_mlp: bool
    query_key_norm: bool
    rope: RopeConfig | None
    eos_token_ids: tuple[int, ...]


# What sets an architecture apart from Llama: (bias on q, k and v; norm on q and k).
_LIKE_LLAMA = {
    "LlamaForCausalLM": (False, False),
    "Qwen2ForCausalLM": (True, False),
    "Qwen3ForCausalLM": (False, True),
}


_GPT2 = "GPT2LMHeadModel"


def read_model_config(folder: Path) -> ModelConfig:
    """The model's shape, from config.json (and the end tokens of generation_config.json).

    Raises:
        ModelError: a field is missing, of the wrong type, or asks for what mindgen does not serve.
    """
    path = folder / "config.json"
    raw = read_json_object(path, ModelError)
    architecture = (raw.get("architectures") or ["(none)"])[0]
    for key in ("quantization_config", "use_sliding_window"):
        if raw.get(key):
            raise ModelError(f"{path}: {key} is not served yet")
    if architecture == _GPT2:
        return _read_gpt2(path, raw)
    if architecture not in _LIKE_LLAMA:
        served = ", ".join([*_LIKE_LLAMA, _GPT2])
        raise ModelError(f"{path}: architecture {architecture} is not served; served are {served}")
    return _read_llama(path, raw, architecture)


def _read_llama(path: Path, raw: dict[str, Any], architecture: str) -> ModelConfig:
    if raw.get("hidden_act", "silu") != "silu":
        raise ModelError(f"{path}: hidden_act {raw['hidden_act']!r} is not served, only 'silu'")
    qkv_bias, query_key_norm = _LIKE_LLAMA[architecture]
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
        norm_epsilon=float(raw.get("rms_norm_eps", 1e-6)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", False)),
        qkv_bias=qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=bool(raw.get("mlp_bias", False)),
        gated_mlp=True,
        query_key_norm=query_key_norm,
        rope=_read_rope(path, raw),
        eos_token_ids=_read_eos(path.parent, raw),
    )
    if config.num_heads % config.num_kv_heads:
        raise ModelError(f"{path}: {config.num_heads} query heads do not divide among {config.num_kv_heads} KV heads")
    if config.head_size % 2:
        raise ModelError(f"{path}: rotary embedding needs an even head_dim, not {config.head_size}")
    return config


def _read_gpt2(path: Path, raw: dict[str, Any]) -> ModelConfig:
    activation = raw.get("activation_function", "gelu_new")
    if activation not in ("gelu_new", "gelu_pytorch_tanh"):
        raise ModelError(f"{path}: activation_function {activation!r} is not served, only 'gelu_new'")
    for key, served in (
        ("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False), ("add_cross_attention", False),
    ):  # fmt: skip
        if raw.get(key, served) is not served:
            raise ModelError(f"{path}: {key}={raw[key]!r} is not served")
    hidden_size, num_heads = _size(path, raw, "n_embd"), _size(path, raw, "n_head")
    if hidden_size % num_heads:
        raise ModelError(f"{path}: n_embd {hidden_size} does not divide into {num_heads} heads")
    return ModelConfig(
        architecture=_GPT2,
        vocab_size=_size(path, raw, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_size(path, raw, "n_inner", 4 * hidden_size),
        num_layers=_size(path, raw, "n_layer"),
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_size=hidden_size // num_heads,
        max_position=_size(path, raw, "n_positions"),
        norm_epsilon=float(raw.get("layer_norm_epsilon", 1e-5)),
        tie_word_embeddings=bool(raw.get("tie_word_embeddings", True)),
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        query_key_norm=False,
        rope=None,
        eos_token_ids=_read_eos(path.parent, raw),
    )


def _size(path: Path, raw: dict[str, Any], key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if type(value) is not int or value < 1:
        raise ModelError(f"{path}: {key} must be a positive integer, not {value!r}")
    return value


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
