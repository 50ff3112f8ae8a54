"""Which network serves which architecture."""

from mindspore import nn

from mindgen.layers.attention import CacheShape
from mindgen.model_config import ModelConfig
from mindgen.models.gpt2 import GPT2LMHeadModel
from mindgen.models.llama import LlamaForCausalLM
from mindgen.parallel.layout import WHOLE, Shard

NETWORKS = {
    "LlamaForCausalLM": LlamaForCausalLM,
    "Qwen2ForCausalLM": LlamaForCausalLM,
    "Qwen3ForCausalLM": LlamaForCausalLM,
    "GPT2LMHeadModel": GPT2LMHeadModel,
}


def build_network(
    config: ModelConfig, cache: CacheShape, num_positions: int, dtype: str, shard: Shard = WHOLE
) -> nn.Cell:
    """The network of that shape, its weights not loaded yet; read_model_config has checked the architecture."""
    return NETWORKS[config.architecture](config, cache, num_positions, dtype, shard)
