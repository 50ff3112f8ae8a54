"""GPTModel, the from-scratch GPT of rosellm's rosetrainer: GPT-2 under other names, with weights as torch's Linear has
them (out, in), and the exact GELU unless its configuration says otherwise."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from mindgen.errors import CheckpointError
from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.gpt2 import ARCHITECTURE as GPT2
from mindgen.weights.architectures.gpt2 import POSITIONS, PREFIX, Gpt2File, like_gpt2
from mindgen.weights.config_file import Size, TokenIds, read_record
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.module_names import ModuleNames
from mindgen.weights.tensor_names import EMBEDDING, FUSED

_NAMES = ModuleNames(
    layers="blocks.",
    own_layers=f"{PREFIX}h.",
    tables={
        "token_embedding": EMBEDDING,
        "position_embedding": POSITIONS.removesuffix(".weight"),
        "ln_f": f"{PREFIX}ln_f",
    },
    modules={
        "ln1": "ln_1",
        "ln2": "ln_2",
        "attn.out_proj": "attn.c_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    },
)
_QKV = "attn.qkv_proj"


class ScratchGptFile(Gpt2File):
    """GPTConfig of rosetrainer's config.py, as config.json; its LayerNorms have torch's epsilon, which is GPT-2's."""

    eos_token_id: TokenIds = None
    n_embd: Size = Field(validation_alias="d_model")
    n_layer: Size = Field(validation_alias="n_layers")
    n_head: Size = Field(validation_alias="n_heads")
    n_positions: Size = Field(validation_alias="max_position_embeddings")
    n_inner: Size = Field(validation_alias="d_ff")
    activation_function: Literal["gelu", "gelu_new"] = Field("gelu", validation_alias="activation")
    tie_word_embeddings: bool = False


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    return like_gpt2(ARCHITECTURE.name, path, read_record(ScratchGptFile, path, raw))


def _translate(tensors: dict[str, MappedTensor], _config: ModelConfig) -> dict[str, MappedTensor]:
    """Views under the names of the network's layers."""
    if f"{EMBEDDING}.weight" in tensors:
        return tensors
    translated: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        layer = _NAMES.in_layer(module)
        if layer is None or layer[1] != _QKV:
            translated[f"{_NAMES.own(module)}.{kind}"] = tensor
            continue
        parts = FUSED["qkv_proj"]
        if tensor.shape[0] % len(parts) or (kind == "weight" and tensor.shape[0] != len(parts) * tensor.shape[1]):
            raise CheckpointError(
                f"{name} has shape {tensor.shape}, and queries, keys and values of {tensor.shape[-1]} would have "
                f"{len(parts) * tensor.shape[-1]} rows: this is the part of one rank of a tensor-parallel training, "
                "and the others were not saved"
            )
        for part, rows in zip(parts, np.split(tensor.data, len(parts)), strict=True):
            translated[f"{PREFIX}h.{layer[0]}.attn.{part}.{kind}"] = replace(tensor, data=rows)
    return translated


ARCHITECTURE = Architecture(
    name="GPTModel",
    model_type="scratch_gpt",
    network=GPT2.network,
    read_config=_read_config,
    cache_layout=GPT2.cache_layout,
    linears=GPT2.linears,
    tensor_shapes=GPT2.tensor_shapes,
    embedding="token_embedding",
    layers=GPT2.layers,
    bare_names=(),
    other_tables=GPT2.other_tables,
    translate=_translate,
    own_module=_NAMES.own,
    their_module=_NAMES.their,
)
