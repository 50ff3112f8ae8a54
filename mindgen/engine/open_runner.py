"""Which runner serves which device."""

from typing import TypeAlias

from mindgen.checkpoint.weight_files import WeightFiles
from mindgen.engine.device_runner import DeviceRunner
from mindgen.engine.runner import Runner
from mindgen.layers.attention import CacheShape
from mindgen.model_config import ModelConfig
from mindgen.parallel.group import ProcessGroup

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
    group: ProcessGroup | None = None,
) -> AnyRunner:
    """This process's part of the network on its device: all of it, or a rank's of a group."""
    shared = (weights, model_config, cache, num_positions, dtype)
    if device == "CPU":
        return Runner(*shared, executor, num_threads, group)
    return DeviceRunner(*shared, device, num_threads, group)
