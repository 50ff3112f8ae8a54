"""Which network serves which architecture."""

from importlib import import_module

from mindgen.layers.parameters import NotedLayouts
from mindgen.layers.spec import NetworkSpec
from mindgen.models.base import CausalLm
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.parallel.stage import pipeline_stages
from mindgen.weights.architecture import architectures
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.model_config import ModelConfig


def build_network(spec: NetworkSpec) -> CausalLm:
    """The network, its weights not loaded yet; read_model_config has checked the architecture."""
    module, _, name = architectures()[spec.config.architecture].network.partition(":")
    network: type[CausalLm] = getattr(import_module(f"mindgen.models.{module}"), name)
    return network(spec)  # type: ignore[call-arg]


def declared_layouts(config: ModelConfig, num_ranks: int, num_stages: int = 1) -> list[dict[str, TensorLayout]]:
    """How the tensors of a model's checkpoint lie on the ranks of each pipeline stage.

    Raises:
        ConfigError: it has fewer layers than there are to be stages.
    """
    shard = Shard(num_ranks)
    layouts = []
    for stage in pipeline_stages(num_stages, config.num_layers):
        noted = NotedLayouts("float32", shard)
        build_network(NetworkSpec(config, CacheShape(1, 1), 1, "float32", shard, stage)).load(noted)
        layouts.append(noted.layouts)
    return layouts
