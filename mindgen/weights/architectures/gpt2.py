"""GPT-2, whose checkpoints are translated for the network: linears (out, in) instead of Conv1D's (in, out), the fused
c_attn as q_proj, k_proj and v_proj, the embedding under the name that other models have for it, nothing derived."""

import re
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AliasChoices, Field

from mindgen.errors import CheckpointError, ModelError
from mindgen.parallel.layout import Axis, Shard
from mindgen.weights.architecture import Architecture
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import ConfigFile, Size, TokenIds, read_ends, read_record
from mindgen.weights.gguf_names import GgufNames, GgufSettings
from mindgen.weights.made_tensor import cut_rows, join_rows, transposed
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import gpt2_shapes
from mindgen.weights.tensor_names import EMBEDDING, FUSED, HEAD, POSITIONS

PREFIX = "transformer."
_MASK = re.compile(r".*\.attn\.(bias|masked_bias)")
_CONV1D = re.compile(r".*\.(attn\.c_attn|attn\.c_proj|mlp\.c_fc|mlp\.c_proj)\.weight")
_C_ATTN = re.compile(r"(.*\.attn)\.c_attn\.(weight|bias)")
_MINDFORMERS = re.compile(r"backbone\.(blocks\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<kind>[^.]+)")
_OWN = re.compile(r"transformer\.(h\.(?P<layer>\d+)\.)?(?P<module>.+)\.(?P<kind>[^.]+)")
_C_ATTN_PART = re.compile(r"(.*\.attn)\.(?:q_proj|k_proj|v_proj)\.(weight|bias)")
_FROM_MINDFORMERS = {
    "embedding.word_embedding": "wte",
    "embedding.position_embedding": "wpe",
    "layernorm": "ln_f",
    "layernorm1": "ln_1",
    "layernorm2": "ln_2",
    "attention": "attn",
    "attention.dense1": "attn.q_proj",
    "attention.dense2": "attn.k_proj",
    "attention.dense3": "attn.v_proj",
    "attention.projection": "attn.c_proj",
    "output.mapping": "mlp.c_fc",
    "output.projection": "mlp.c_proj",
}
# MindFormers' words for weight and bias, and which modules have them.
_KINDS = {"embedding_table": "weight", "gamma": "weight", "beta": "bias", "masked_beta": "masked_bias"}
_TABLE, _NORM = {"weight": "embedding_table"}, {"weight": "gamma", "bias": "beta"}
_KINDS_OF_MODULES = {
    "embedding.word_embedding": _TABLE,
    "embedding.position_embedding": _TABLE,
    "layernorm": _NORM,
    "layernorm1": _NORM,
    "layernorm2": _NORM,
    "attention": {"bias": "beta", "masked_bias": "masked_beta"},
}


class Gpt2File(ConfigFile):
    """config.json of a GPT2LMHeadModel; of sizes that stand there under both of their names, the general one counts."""

    eos_token_id: TokenIds = (50256,)
    n_embd: Size = Field(validation_alias=AliasChoices("hidden_size", "n_embd"))
    n_layer: Size = Field(validation_alias=AliasChoices("num_hidden_layers", "n_layer"))
    n_head: Size = Field(validation_alias=AliasChoices("num_attention_heads", "n_head"))
    n_positions: Size = Field(validation_alias=AliasChoices("max_position_embeddings", "n_positions"))
    n_inner: Size | None = None
    activation_function: Literal["gelu_new", "gelu_pytorch_tanh", "gelu"] = "gelu_new"
    layer_norm_epsilon: Annotated[float, Field(ge=0)] = 1e-5
    tie_word_embeddings: bool = True
    scale_attn_weights: Literal[True] = True
    scale_attn_by_inverse_layer_idx: Literal[False] = False
    add_cross_attention: Literal[False] = False


def _read_gpt2(path: Path, raw: dict[str, Any]) -> ModelConfig:
    return like_gpt2(ARCHITECTURE.name, path, read_record(Gpt2File, path, raw))


def like_gpt2(architecture: str, path: Path, file: Gpt2File) -> ModelConfig:
    """Of a model whose network is GPT-2's; raises ModelError where its heads do not divide."""
    if file.n_embd % file.n_head:
        raise ModelError(f"{path}: a hidden size of {file.n_embd} does not divide into {file.n_head} heads")
    return ModelConfig(
        architecture=architecture,
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
        eos_token_ids=read_ends(path, file),
        exact_gelu=file.activation_function == "gelu",
    )


def _linears(config: ModelConfig, shard: Shard) -> list[tuple[Axis, Axis]]:
    """q, k, v and c_proj, c_fc and c_proj."""
    hidden, inner = Axis(config.hidden_size), shard.split(config.intermediate_size)
    queries, keys = shard.split_heads(config.num_heads, config.num_heads, config.head_size)
    return [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden), (hidden, inner), (inner, hidden)]


def _with_huggingface_names(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """As transformers saves the whole model, whether they come from there, from MindFormers, or are the network's.

    Raises:
        CheckpointError: one of q, k and v is missing.
    """
    is_networks = f"{EMBEDDING}.weight" in tensors
    saved: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        name = f"{PREFIX}wte.weight" if name == f"{EMBEDDING}.weight" else _huggingface_name(name)
        part = _C_ATTN_PART.fullmatch(name)
        if part is None:
            saved[name] = transposed(tensor) if is_networks and is_conv1d(name) else tensor
            continue
        fused = f"{part[1]}.c_attn.{part[2]}"
        if fused not in saved:
            saved[fused] = _join_c_attn(_renamed(tensors), part[1], part[2])
    return saved


def _join_c_attn(tensors: dict[str, MappedTensor], attention: str, kind: str) -> MappedTensor:
    """c_attn as transformers has it: (in, out), while its parts are (out, in)."""
    names = [f"{attention}.{part}.{kind}" for part in FUSED["c_attn"]]
    missing = [name for name in names if name not in tensors]
    if missing:
        raise CheckpointError(f"there is no {missing[0]} beside the others of q, k and v")
    joined = join_rows(names[0], [tensors[name] for name in names])
    return transposed(joined) if kind == "weight" else joined


def _with_mindformers_names(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """MindFormers keeps q, k and v apart, and (out, in), but the other linears as transformers has them."""
    renamed: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        fused = _C_ATTN.fullmatch(name)
        if fused is None:
            renamed[_mindformers_name(name)] = tensor
            continue
        rows = transposed(tensor) if fused[2] == "weight" else tensor
        size = rows.shape[0] // len(FUSED["c_attn"])
        for place, part in enumerate(FUSED["c_attn"]):
            own = _mindformers_name(f"{fused[1]}.{part}.{fused[2]}")
            renamed[own] = cut_rows(rows, place * size, (place + 1) * size)
    return renamed


def _renamed(tensors: dict[str, MappedTensor]) -> dict[str, MappedTensor]:
    """Names as the whole model has them: with the prefix that is not there where the model was saved without its head,
    and instead of MindFormers' names."""
    return {_huggingface_name(name): tensor for name, tensor in tensors.items()}


def _huggingface_name(name: str) -> str:
    match = _MINDFORMERS.fullmatch(name)
    if match is not None:
        module = _FROM_MINDFORMERS.get(match["module"], match["module"])
        kind = _KINDS.get(match["kind"], match["kind"])
        name = f"{module}.{kind}" if match["layer"] is None else f"h.{match['layer']}.{module}.{kind}"
    return name if name.startswith((PREFIX, "lm_head.")) else PREFIX + name


def _mindformers_name(name: str) -> str:
    """The same the other way round; a name that MindFormers has none for stays."""
    match = _OWN.fullmatch(name)
    if match is None:
        return name
    # A table or a norm has its own word for weight and bias, and so has the mask; a linear has not.
    known = {ours: theirs for theirs, ours in _FROM_MINDFORMERS.items()}
    module = known.get(match["module"], match["module"])
    kind = _KINDS_OF_MODULES.get(module, {}).get(match["kind"], match["kind"])
    layer = "" if match["layer"] is None else f"blocks.{match['layer']}."
    return f"backbone.{layer}{module}.{kind}"


def is_conv1d(name: str) -> bool:
    """Whether that parameter is a weight (in, out)."""
    return _CONV1D.fullmatch(name) is not None


def linear_weights(tensors: dict[str, MappedTensor], _: ModelConfig) -> dict[str, MappedTensor]:
    """Views of the tensors, under the names of the network's layers, which slices for ranks have already."""
    if f"{EMBEDDING}.weight" in tensors:
        return tensors
    linears: dict[str, MappedTensor] = {}
    for name, tensor in _renamed(tensors).items():
        if _MASK.fullmatch(name):
            continue
        if is_conv1d(name):
            tensor = replace(tensor, data=tensor.data.T)
        if name == f"{PREFIX}wte.weight":
            name = f"{EMBEDDING}.weight"
        fused = _C_ATTN.fullmatch(name)
        if fused is None:
            linears[name] = tensor
            continue
        parts = FUSED["c_attn"]
        for part, rows in zip(parts, np.array_split(tensor.data, len(parts)), strict=True):
            linears[f"{fused[1]}.{part}.{fused[2]}"] = replace(tensor, data=rows)
    return linears


def _gguf_settings(config: ModelConfig) -> dict[str, Any]:
    if config.exact_gelu:
        raise ModelError("GGUF has no place for activation_function 'gelu': its gpt2 has the GELU with the tangent")
    return {
        "vocab_size": config.vocab_size,
        "context_length": config.max_position,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "block_count": config.num_layers,
        "attention.head_count": config.num_heads,
        "attention.layer_norm_epsilon": config.norm_epsilon,
    }


def _read_gguf(settings: GgufSettings, tensors: Collection[str]) -> dict[str, Any]:
    return {
        "n_embd": settings.need("embedding_length", int),
        "n_layer": settings.need("block_count", int),
        "n_head": settings.need("attention.head_count", int),
        "n_positions": settings.need("context_length", int),
        "n_inner": settings.need("feed_forward_length", int),
        "layer_norm_epsilon": settings.need("attention.layer_norm_epsilon", float),
    }


_GGUF = GgufNames(
    architecture="gpt2",
    read_config=_read_gguf,
    write_config=_gguf_settings,
    tables={
        "token_embd": EMBEDDING, "position_embd": POSITIONS.removesuffix(".weight"), "output_norm": f"{PREFIX}ln_f",
        "output": HEAD,
    },
    layers=f"{PREFIX}h.",
    modules={
        "attn_norm": "ln_1", "attn_output": "attn.c_proj", "ffn_norm": "ln_2", "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
    fused={"attn_qkv": tuple(f"attn.{part}" for part in FUSED["c_attn"])},
    plain=frozenset({"position_embd"}),
)  # fmt: skip
ARCHITECTURE = Architecture(
    name="GPT2LMHeadModel",
    model_type="gpt2",
    network="gpt2:GPT2LMHeadModel",
    read_config=_read_gpt2,
    cache_layout=keys_and_values,
    linears=_linears,
    tensor_shapes=gpt2_shapes,
    ties_head=True,
    embedding=f"{PREFIX}wte",
    layers=f"{PREFIX}h.",
    bare_names=("h.", "wte", "wpe", "ln_f"),
    other_tables=(POSITIONS,),
    fused=("c_attn",),
    with_own_names=_with_huggingface_names,
    with_mindformers_names=_with_mindformers_names,
    translate=linear_weights,
    is_stored_by_inputs=is_conv1d,
    gguf=_GGUF,
)
