"""The paged KV cache: how many blocks there are, and what a block keeps of each token."""

from dataclasses import dataclass

from mindgen.kernels.dtypes import STORAGE
from mindgen.parallel.layout import Axis, Shard
from mindgen.weights.model_config import ModelConfig


@dataclass(frozen=True, slots=True)
class CacheShape:
    """How many KV blocks there are, and how many tokens each holds."""

    num_blocks: int
    block_size: int


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """What a layer keeps of a token.

    Attributes:
        arrays: the axes of each array: of keys and values, heads and a head's size.
    """

    arrays: tuple[tuple[Axis, ...], ...]

    def token_bytes(self, shard: Shard, dtype: str) -> int:
        """On all ranks together, with the room that those have who are not full."""
        itemsize = STORAGE[dtype]().itemsize
        total = 0
        for axes in self.arrays:
            elements = 1
            for axis in axes:
                elements *= axis.slice_size
            total += elements * itemsize
        return shard.num_ranks * total


def keys_and_values(config: ModelConfig, shard: Shard) -> CacheLayout:
    """Of multi-head and grouped-query attention: ranks that share query heads share their keys and values."""
    _, keys = shard.split_heads(config.num_heads, config.num_kv_heads, config.head_size)
    axes = (Axis(config.num_kv_heads, keys.devices, keys.split_by), Axis(config.head_size))
    return CacheLayout((axes, axes))
