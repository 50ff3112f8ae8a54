"""Mistral, as far as every layer sees all positions: Llama without any biases."""

from pathlib import Path
from typing import Any, Literal

from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.llama import LlamaFile, like_llama, linears
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import Size, read_record
from mindgen.weights.gguf_names import LLAMA_GGUF
from mindgen.weights.mindformers_names import from_mindformers, to_mindformers, translate
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import llama_shapes


class MistralFile(LlamaFile):
    """config.json of a MistralForCausalLM."""

    num_key_value_heads: Size | None = 8
    sliding_window: Size | None = 4096
    attention_bias: Literal[False] = False
    mlp_bias: Literal[False] = False


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    return like_llama(path, read_record(MistralFile, path, raw), ARCHITECTURE.name)


ARCHITECTURE = Architecture(
    name="MistralForCausalLM",
    model_type="mistral",
    network="llama:LlamaForCausalLM",
    read_config=_read_config,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    with_own_names=from_mindformers,
    with_mindformers_names=to_mindformers,
    translate=translate,
    gguf=LLAMA_GGUF,
)
