"""Qwen2 and 2.5: Llama with a bias on q, k and v."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mindgen.weights.architecture import Architecture
from mindgen.weights.architectures.llama import LlamaFile, like_llama, linears
from mindgen.weights.cache_layout import keys_and_values
from mindgen.weights.config_file import Size, TokenIds, read_record
from mindgen.weights.gguf_names import LLAMA_GGUF
from mindgen.weights.mindformers_names import from_mindformers, to_mindformers, translate
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.network_shapes import llama_shapes


class Qwen2File(LlamaFile):
    """config.json of a Qwen2ForCausalLM."""

    eos_token_id: TokenIds = None
    num_key_value_heads: Size | None = 32
    use_sliding_window: bool = False
    sliding_window: Size | None = 4096
    max_window_layers: int = 28


def _read_config(path: Path, raw: dict[str, Any]) -> ModelConfig:
    config = like_llama(path, read_record(Qwen2File, path, raw), ARCHITECTURE.name)
    return replace(config, qkv_bias=True, output_bias=False, mlp_bias=False)  # whatever the file says


# Rows of q and k lie as in Hugging Face.
QWEN_GGUF = replace(LLAMA_GGUF, architecture="qwen2", permuted={})
ARCHITECTURE = Architecture(
    name="Qwen2ForCausalLM",
    model_type="qwen2",
    network="llama:LlamaForCausalLM",
    read_config=_read_config,
    cache_layout=keys_and_values,
    linears=linears,
    tensor_shapes=llama_shapes,
    with_own_names=from_mindformers,
    with_mindformers_names=to_mindformers,
    translate=translate,
    gguf=QWEN_GGUF,
)
