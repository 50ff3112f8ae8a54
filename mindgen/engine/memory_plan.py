"""How much memory goes where, decided before any of it is taken."""

import os
import re
from dataclasses import dataclass

from mindgen.dtypes import STORAGE
from mindgen.engine.config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.model_config import ModelConfig
from mindgen.parallel.layout import Shard

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Sizes in bytes.

    Attributes:
        adapters: what all adapter slots will take once the first adapter is used.
        num_swap_blocks: of host memory, beside the cache's own num_blocks.
    """

    weights: int
    adapters: int
    num_blocks: int
    block_size: int
    block_bytes: int
    num_swap_blocks: int
    max_model_len: int

    @property
    def num_full_sequences(self) -> float:
        """How many sequences of max_model_len tokens the cache holds."""
        return self.num_blocks / -(-self.max_model_len // self.block_size)

    def __str__(self) -> str:
        swap = f", {_mib(self.num_swap_blocks * self.block_bytes)} to swap" if self.num_swap_blocks else ""
        return (
            f"memory: weights {_mib(self.weights)}, adapters {_mib(self.adapters)}, "
            f"KV cache {_mib(self.num_blocks * self.block_bytes)}{swap} "
            f"({self.num_blocks} blocks of {self.block_size} tokens: "
            f"{self.num_full_sequences:.1f} sequences of {self.max_model_len})"
        )


def plan_memory(
    model: ModelConfig,
    dtype: str,
    config: EngineConfig,
    max_model_len: int,
    weights: int,
    adapters: int,
    is_in_host_memory: bool = True,
) -> MemoryPlan:
    """The plan for a model whose weights and adapter slots take so many bytes, on all ranks together.

    Without num_blocks the cache takes what max_num_seqs full-length sequences need, up to memory_utilization.

    Args:
        is_in_host_memory: all of it; else only what is swapped out. How much of a device's is free, MindSpore only
            knows once it uses it.

    Raises:
        ConfigError: the cache cannot hold one block, or the swap space exceeds the free memory.
    """
    if not is_in_host_memory and config.num_blocks is None and not isinstance(config.memory_utilization, str):
        raise ConfigError(
            f"engine: on Ascend memory_utilization must be the size of the KV cache, like 20GiB, not the share "
            f"{config.memory_utilization}"
        )
    item_size = STORAGE[dtype]().itemsize
    shard = Shard(config.tensor_parallel_size)
    _, keys = shard.split_heads(model.num_heads, model.num_kv_heads, model.head_size)
    token_bytes = 2 * model.num_layers * shard.num_ranks * keys.slice_size * item_size  # keys and values
    block_bytes = token_bytes * config.block_size
    num_blocks = config.num_blocks
    free = free_memory()
    if num_blocks is None:
        limit = _affordable(config.memory_utilization, free, weights + adapters)
        wanted = -(-max_model_len // config.block_size) * config.max_num_seqs
        num_blocks = min(wanted, limit // block_bytes)
        if num_blocks < 1:
            raise ConfigError(
                f"engine: memory_utilization ({config.memory_utilization}) leaves {_mib(limit)} for the KV cache, "
                f"and a block takes {block_bytes} bytes: raise it"
            )
    taken = num_blocks * block_bytes + weights + adapters
    swap = int(config.swap_space * 2**30)
    if not is_in_host_memory and swap > free:
        raise ConfigError(f"engine: swap_space needs {_mib(swap)}, and {_mib(free)} are free: lower it")
    if is_in_host_memory and taken + swap > free:
        raise ConfigError(
            f"engine: weights, adapters, KV cache and swap_space need {_mib(taken + swap)}, and {_mib(free)} are free: "
            "lower num_blocks, memory_utilization or swap_space"
        )
    return MemoryPlan(weights, adapters, num_blocks, config.block_size, block_bytes, swap // block_bytes, max_model_len)


def lora_rank_bytes(model: ModelConfig, dtype: str, has_tables: bool, num_processes: int = 1) -> int:
    """What one rank of an adapter of all linears takes, or of embedding and head too: a vector in and out for each.

    Where several processes share the network, in all of them together.
    """
    shard = Shard(num_processes)
    hidden, inner = model.hidden_size, shard.split(model.intermediate_size).slice_size
    heads = shard.split_heads(model.num_heads, model.num_kv_heads, model.head_size)
    queries, keys = (axis.slice_size for axis in heads)
    attention = (hidden + queries) + 2 * (hidden + keys) + (queries + hidden)
    mlp = (3 if model.gated_mlp else 2) * (hidden + inner)
    tables = 2 * (hidden + shard.split(model.vocab_size).slice_size) if has_tables else 0
    return num_processes * (model.num_layers * (attention + mlp) + tables) * STORAGE[dtype]().itemsize


def parse_size(text: str) -> int:
    """Bytes of a size like "4GiB", "512 MB" or "1048576".

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"expected a share up to 1, or a size like 4GiB, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def free_memory() -> int:
    """Bytes that this process may still take: MemAvailable, or what the system has free."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _affordable(utilization: float | str, free: int, taken: int) -> int:
    if isinstance(utilization, str):
        return parse_size(utilization)
    return max(0, int(free * utilization) - taken)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
