"""Qwen3: Llama with a norm on the heads of q and k."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.llama import like_llama, linears
from mindgen.weights.architectures.qwen2 import QWEN_GGUF, Qwen2File
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import Size, read_record
from mindgen.weights.mindformers_names import from_mindformers, to_megatron, translate
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import llama_shapes


class Qwen3File(Qwen2File):
    """config.json of a Qwen3ForCausalLM."""

    head_dim: Size = 128  # type: ignore[assignment]


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    config = like_llama(path, read_record(Qwen3File, path, raw), ARCHITECTURE.name)
    return replace(config, mlp_bias=False, query_key_norm=True)


ARCHITECTURE = Architecture(
    name="Qwen3ForCausalLM",
    model_type="qwen3",
    network="llama:LlamaForCausalLM",
    read_config=_read_config,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    with_own_names=from_mindformers,
    with_mindformers_names=to_megatron,
    translate=translate,
    gguf=replace(
        QWEN_GGUF,
        architecture="qwen3",
        modules=dict(QWEN_GGUF.modules, attn_q_norm="self_attn.q_norm", attn_k_norm="self_attn.k_norm"),
    ),
)
