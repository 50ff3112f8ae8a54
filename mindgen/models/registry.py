"""Which network serves which architecture."""

from pathlib import Path

from mindspore import nn

from mindgen.layers.attention import CacheShape
from mindgen.model_config import ModelConfig, read_model_config
from mindgen.models.gpt2 import GPT2LMHeadModel
from mindgen.models.llama import LlamaForCausalLM
from mindgen.parallel.layout import WHOLE, Shard, TensorLayout

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


def declared_layouts(folder: Path, num_ranks: int) -> dict[str, TensorLayout]:
    """How the tensors of a model folder's checkpoint lie on so many ranks; those not named lie whole on each.

    Raises:
        ModelError: the model cannot be served.
    """
    network = build_network(read_model_config(folder), CacheShape(1, 1), 1, "float32", Shard(num_ranks))
    return network.layouts()
