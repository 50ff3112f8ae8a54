"""The shape of a model, read from a Hugging Face config.json."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindgen.errors import ModelError, warn
from mindgen.system.json_file import read_json_object
from mindgen.weights import config_file
from mindgen.weights.config_file import (
    GPT2,
    ConfigFile,
    GenerationFile,
    Gpt2File,
    LlamaFile,
    Qwen2File,
    Qwen3File,
    read_record,
)


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding: its base, and how its frequencies are stretched ("default", "linear", "llama3").

    Attributes:
        original_max_position: how many positions the model had before they were stretched.
    """

    theta: float
    kind: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_max_position: int = 1


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What the networks differ in; all sizes in elements.

    Attributes:
        dtype: what config.json says that the weights have; None if it does not.
        gated_mlp: whether it has three linears, gate, up and down, or two.
        rope: None where positions are learned.
        eos_token_ids: all within the vocabulary.
    """

    architecture: str
    dtype: str | None
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


_MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    GPT2: "gpt2",
}
_LIKE_LLAMA = {"LlamaForCausalLM": LlamaFile, "Qwen2ForCausalLM": Qwen2File, "Qwen3ForCausalLM": Qwen3File}
_ROPES: dict[str, type[config_file.RopeFile]] = {
    "default": config_file.RopeFile,
    "linear": config_file.LinearRopeFile,
    "llama3": config_file.Llama3RopeFile,
}


def read_model_config(folder: Path) -> ModelConfig:
    """The model's shape, from config.json (and the end tokens of generation_config.json).

    Raises:
        ModelError: a field is missing, of the wrong type, or asks for what mindgen does not serve.
    """
    path = folder / config_file.CONFIG_FILE
    raw = read_json_object(path, ModelError)
    architecture = read_architecture(path, raw)
    for key in ("quantization_config", "compression_config"):
        if raw.get(key):
            raise ModelError(f"{path}: {key} is not served yet")
    return _read_gpt2(path, raw) if architecture == GPT2 else _read_llama(path, raw, architecture)


def read_architecture(path: Path, raw: dict[str, Any]) -> str:
    """The architecture that config.json names, or else that of its model_type.

    Raises:
        ModelError: it is not served, or the two contradict each other.
    """
    names = read_record(config_file.NamesFile, path, raw)
    named = [name for name, model_type in _MODEL_TYPES.items() if model_type == names.model_type]
    architecture = (names.architectures or named or ["(none)"])[0]
    if architecture not in _MODEL_TYPES:
        raise ModelError(f"{path}: architecture {architecture} is not served; served are {', '.join(_MODEL_TYPES)}")
    if names.model_type not in (None, _MODEL_TYPES[architecture]):
        raise ModelError(
            f"{path}: architectures says {architecture}, model_type {names.model_type!r}; expected "
            f"{_MODEL_TYPES[architecture]!r}: correct the one that is wrong"
        )
    return architecture


def _read_llama(path: Path, raw: dict[str, Any], architecture: str) -> ModelConfig:
    file = read_record(_LIKE_LLAMA[architecture], path, raw)
    _refuse_windows(path, file)
    num_heads, num_kv_heads = file.num_attention_heads, file.num_key_value_heads or file.num_attention_heads
    if file.head_dim is None and file.hidden_size % num_heads:
        raise ModelError(
            f"{path}: there is no head_dim, and hidden_size {file.hidden_size} does not divide into {num_heads} heads"
        )
    is_qwen2 = architecture == "Qwen2ForCausalLM"  # whose biases are where they are, whatever the file says
    config = ModelConfig(
        architecture=architecture,
        dtype=file.dtype or file.torch_dtype,
        vocab_size=file.vocab_size,
        hidden_size=file.hidden_size,
        intermediate_size=file.intermediate_size,
        num_layers=file.num_hidden_layers,
        num_heads=num_heads,
        num_kv_heads=num_kv_heads,
        head_size=file.head_dim or file.hidden_size // num_heads,
        max_position=file.max_position_embeddings,
        norm_epsilon=file.rms_norm_eps,
        tie_word_embeddings=file.tie_word_embeddings,
        qkv_bias=is_qwen2 or file.attention_bias,
        output_bias=file.attention_bias and not is_qwen2,
        mlp_bias=file.mlp_bias and architecture == "LlamaForCausalLM",
        gated_mlp=True,
        query_key_norm=architecture == "Qwen3ForCausalLM",
        rope=_read_rope(path, file),
        eos_token_ids=_read_ends(path, file),
    )
    if num_heads % num_kv_heads:
        raise ModelError(f"{path}: {num_heads} query heads do not divide among {num_kv_heads} KV heads")
    if config.head_size % 2:
        raise ModelError(f"{path}: rotary embedding needs an even head_dim, not {config.head_size}")
    return config


def _read_gpt2(path: Path, raw: dict[str, Any]) -> ModelConfig:
    file = read_record(Gpt2File, path, raw)
    if file.n_embd % file.n_head:
        raise ModelError(f"{path}: n_embd {file.n_embd} does not divide into {file.n_head} heads")
    return ModelConfig(
        architecture=GPT2,
        dtype=file.dtype or file.torch_dtype,
        vocab_size=file.vocab_size,
        hidden_size=file.n_embd,
        intermediate_size=file.n_inner or 4 * file.n_embd,
        num_layers=file.n_layer,
        num_heads=file.n_head,
        num_kv_heads=file.n_head,
        head_size=file.n_embd // file.n_head,
        max_position=file.n_positions,
        norm_epsilon=file.layer_norm_epsilon,
        tie_word_embeddings=file.tie_word_embeddings,
        qkv_bias=True,
        output_bias=True,
        mlp_bias=True,
        gated_mlp=False,
        query_key_norm=False,
        rope=None,
        eos_token_ids=_read_ends(path, file),
    )


def _refuse_windows(path: Path, file: LlamaFile) -> None:
    """Raises ModelError where a layer sees less than all positions before its own."""
    kinds = file.layer_types
    if kinds is not None:
        if len(kinds) != file.num_hidden_layers:
            raise ModelError(f"{path}: layer_types has {len(kinds)} entries for {file.num_hidden_layers} layers")
        other = next((kind for kind in kinds if kind != "full_attention"), None)
        if other is not None:
            raise ModelError(f"{path}: layer_types {other!r} is not served, only 'full_attention'")
        return
    window = file.sliding_window if file.use_sliding_window else None
    if window is None or window >= file.max_position_embeddings or file.max_window_layers >= file.num_hidden_layers:
        return
    raise ModelError(f"{path}: a sliding_window ({window}) is not served yet")


def _read_rope(path: Path, file: LlamaFile) -> RopeConfig:
    # transformers 5 writes rope_parameters; before, rope_theta stood beside rope_scaling.
    section = "rope_scaling" if file.rope_scaling else "rope_parameters"
    said = file.rope_scaling or file.rope_parameters or {}
    if file.rope_scaling and file.rope_parameters and file.rope_scaling != file.rope_parameters:
        warn(f"{path} has rope_scaling and rope_parameters, and they differ: rope_scaling is used")
    kind = said.get("rope_type", said.get("type", "default"))
    if not isinstance(kind, str) or kind not in _ROPES:
        raise ModelError(f"{path}: rope type {kind!r} is not served; served are {', '.join(_ROPES)}")
    if any(isinstance(value, dict) for value in said.values()):
        raise ModelError(f"{path}: {section} for each kind of layer is not served, only one for all")
    partial = said.get("partial_rotary_factor", file.partial_rotary_factor)
    if partial not in (None, 1):
        raise ModelError(f"{path}: partial_rotary_factor {partial!r} is not served, only 1.0")
    settings = {"rope_theta": file.rope_theta, "original_max_position_embeddings": file.max_position_embeddings, **said}
    if file.original_max_position_embeddings is not None:
        settings["original_max_position_embeddings"] = file.original_max_position_embeddings
    rope = read_record(_ROPES[kind], path, settings, f"{section}.")
    if isinstance(rope, config_file.Llama3RopeFile):
        if rope.high_freq_factor <= rope.low_freq_factor:
            raise ModelError(
                f"{path}: {section}.high_freq_factor must be above low_freq_factor ({rope.low_freq_factor}), not "
                f"{rope.high_freq_factor}"
            )
        return RopeConfig(
            rope.rope_theta, kind, rope.factor, rope.low_freq_factor, rope.high_freq_factor,
            rope.original_max_position_embeddings,
        )  # fmt: skip
    return RopeConfig(rope.rope_theta, kind, rope.factor if isinstance(rope, config_file.LinearRopeFile) else 1.0)


def _read_ends(path: Path, file: ConfigFile) -> tuple[int, ...]:
    """The end tokens that the vocabulary has; what generation_config.json says goes before config.json."""
    _check_tokens(path, file, file.vocab_size)
    ends = file.eos_token_id
    generation_path = path.with_name("generation_config.json")
    if generation_path.is_file():
        generation = read_record(GenerationFile, generation_path, read_json_object(generation_path, ModelError))
        _check_tokens(generation_path, generation, file.vocab_size)
        ends = ends if generation.eos_token_id is None else generation.eos_token_id
    return tuple(token_id for token_id in ends or () if 0 <= token_id < file.vocab_size)


def _check_tokens(path: Path, file: GenerationFile, vocab_size: int) -> None:
    """Warns of tokens that no output can have."""
    for key in ("eos_token_id", "bos_token_id", "pad_token_id"):
        said = getattr(file, key) if key in file.model_fields_set else None
        beyond = [token_id for token_id in said or () if not 0 <= token_id < vocab_size]
        if beyond:
            shown = ", ".join(map(str, beyond))
            warn(f"{path}: {key} {shown} is outside the vocabulary of {vocab_size}, and is ignored")


def settle_head(config: ModelConfig, where: Path, has_own_head: bool) -> ModelConfig:
    """As transformers does: where config.json ties a head that the checkpoint has apart, the checkpoint is right."""
    if not (config.tie_word_embeddings and has_own_head):
        return config
    warn_of_own_head(where)
    return replace(config, tie_word_embeddings=False)


def warn_of_own_head(where: Path) -> None:
    warn(
        f"{where}: config.json ties the head to the embedding, but the checkpoint has both, and they differ: its "
        "lm_head.weight is used"
    )
