"""Llama 2 and 3."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mindgen.errors import ModelError
from mindgen.parallel.layout import Axis, Shard
from mindgen.weights.architecture import Architecture
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import Size, TokenIds, read_ends, read_record
from mindgen.weights.gguf_names import LLAMA_GGUF
from mindgen.weights.mindformers_names import from_mindformers, to_mindformers, translate
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import llama_shapes
from mindgen.weights.rope_config import RotaryFile, read_rope


class LlamaFile(RotaryFile):
    """config.json of a LlamaForCausalLM."""

    eos_token_id: TokenIds = (2,)
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Size
    num_attention_heads: Size
    num_key_value_heads: Size | None = None
    head_dim: Size | None = None
    hidden_act: Literal["silu", "swish"] = "silu"
    rms_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1e-6  # what MindSpore's RmsNorm takes
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    use_sliding_window: bool = True
    sliding_window: Size | None = None
    max_window_layers: int = 0
    layer_types: list[str] | None = None


def read_llama(path: Path, raw: dict[str, Any]) -> ModelConfig:
    return like_llama(path, read_record(LlamaFile, path, raw), ARCHITECTURE.name)


def like_llama(path: Path, file: LlamaFile, architecture: str) -> ModelConfig:
    """The shape of a model that differs from Llama by its sizes, and by what a caller replaces.

    Raises:
        ModelError: the file asks for what is not served.
    """
    _refuse_windows(path, file)
    num_heads, num_kv_heads = file.num_attention_heads, file.num_key_value_heads or file.num_attention_heads
    if file.head_dim is None and file.hidden_size % num_heads:
        raise ModelError(
            f"{path}: there is no head_dim, and hidden_size {file.hidden_size} does not divide into {num_heads} heads"
        )
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
        qkv_bias=file.attention_bias,
        output_bias=file.attention_bias,
        mlp_bias=file.mlp_bias,
        gated_mlp=True,
        query_key_norm=False,
        rope=read_rope(path, file),
        eos_token_ids=read_ends(path, file),
    )
    if num_heads % num_kv_heads:
        raise ModelError(f"{path}: {num_heads} query heads do not divide among {num_kv_heads} KV heads")
    if config.head_size % 2:
        raise ModelError(f"{path}: rotary embedding needs an even head_dim, not {config.head_size}")
    if config.rope is not None and config.rope.rotated_size(config.head_size) % 2:
        raise ModelError(
            f"{path}: {config.rope.rotated_size(config.head_size)} of a head's {config.head_size} dimensions would be "
            "rotated, and they go in pairs"
        )
    num_factors = len(config.rope.factors) if config.rope is not None else 0
    if num_factors not in (0, config.head_size // 2):
        raise ModelError(
            f"{path}: rope has {num_factors} factors for heads of {config.head_size}, expected half as many"
        )
    return config


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


def linears(config: ModelConfig, shard: Shard) -> list[tuple[Axis, Axis]]:
    """q, k, v, o, gate, up and down."""
    hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
    queries, keys = shard.split_heads(config.num_heads, config.num_kv_heads, config.head_size)
    attention = [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden)]
    return [*attention, (hidden, inner), (hidden, inner), (inner, hidden)]


ARCHITECTURE = Architecture(
    name="LlamaForCausalLM",
    model_type="llama",
    network="llama:LlamaForCausalLM",
    read_config=read_llama,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    with_own_names=from_mindformers,
    with_mindformers_names=to_mindformers,
    translate=translate,
    gguf=LLAMA_GGUF,
)
