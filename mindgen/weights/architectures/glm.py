"""GLM-4 as transformers has it (glm-4-9b-chat-hf): Llama whose heads are rotated by half, in pairs that lie side by
side, and whose checkpoints have gate and up as one."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from mindgen.errors import CheckpointError
from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.llama import LlamaFile, like_llama, linears
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import Positive, Size, TokenIds, read_record
from mindgen.weights.made_tensor import cut_rows
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import llama_shapes
from mindgen.weights.tensor_names import FUSED


class GlmFile(LlamaFile):
    """config.json of a GlmForCausalLM."""

    interleaved: ClassVar[bool] = True
    eos_token_id: TokenIds = (151329, 151336, 151338)
    num_key_value_heads: Size | None = 2
    head_dim: Size | None = 128
    rms_norm_eps: Annotated[float, Field(gt=0, le=1)] = 1.5625e-07
    attention_bias: bool = True
    partial_rotary_factor: Positive | None = 0.5


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    return like_glm(path, raw, ARCHITECTURE.name)


def like_glm(path: Path, raw: dict[str, Any], architecture: str) -> ModelConfig:
    """The shape of a model that this is the configuration of, in GlmForCausalLM's words.

    Raises:
        ModelError: it asks for what is not served.
    """
    config = like_llama(path, read_record(GlmFile, path, raw), architecture)
    return replace(config, output_bias=False, mlp_bias=False)


def without_fused(tensors: dict[str, MappedTensor], config: ModelConfig) -> dict[str, MappedTensor]:
    """Views of the parts of what checkpoints have as one, which slices for ranks have apart already.

    Raises:
        CheckpointError: a tensor is not as large as its parts together.
    """
    queries, keys = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    sizes = {"q_proj": queries, "k_proj": keys, "v_proj": keys}
    sizes |= dict.fromkeys(("gate_proj", "up_proj"), config.intermediate_size)
    separate: dict[str, MappedTensor] = {}
    for name, tensor in tensors.items():
        module, _, kind = name.rpartition(".")
        parent, _, fused = module.rpartition(".")
        parts = FUSED.get(fused)
        if parts is None:
            separate[name] = tensor
            continue
        total = sum(sizes[part] for part in parts)
        if tensor.shape[:1] != (total,):
            raise CheckpointError(f"{name} has shape {tensor.shape}, config.json asks for {total} rows")
        row = 0
        for part in parts:
            separate[f"{parent}.{part}.{kind}"] = cut_rows(tensor, row, row + sizes[part])
            row += sizes[part]
    return separate


ARCHITECTURE = Architecture(
    name="GlmForCausalLM",
    model_type="glm",
    network="llama:LlamaForCausalLM",
    read_config=_read_config,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    translate=without_fused,
)
