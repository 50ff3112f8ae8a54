"""Which runner serves which device."""

from typing import TypeAlias

from mindgen.layers.attention import CacheShape
from mindgen.parallel.rank_place import RankPlace
from mindgen.runner.ascend import DeviceRunner
from mindgen.runner.cpu import Runner
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles

AnyRunner: TypeAlias = Runner | DeviceRunner


def open_runner(
    weights: WeightFiles,
    model_config: ModelConfig,
    cache: CacheShape,
    num_positions: int,
    dtype: str,
    device: str,
    executor: str,
    num_threads: int | None,
    place: RankPlace | None = None,
) -> AnyRunner:
    """This process's part of the network on its device: all of it, or a rank's."""
    shared = (weights, model_config, cache, num_positions, dtype)
    if device == "CPU":
        return Runner(*shared, executor, num_threads, place)
    return DeviceRunner(*shared, device, num_threads, None if place is None else place.group)
