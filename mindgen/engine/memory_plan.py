"""How much memory goes where, decided before any of it is taken."""

from collections.abc import Sequence
from dataclasses import dataclass

from mindgen.engine.engine_spec import EngineSpec
from mindgen.errors import ConfigError
from mindgen.kernels.dtypes import STORAGE
from mindgen.parallel.layout import Shard
from mindgen.parallel.stage import pipeline_stages
from mindgen.system.memory import free_memory, parse_size
from mindgen.weights.architecture import Architecture, architectures
from mindgen.weights.tensor_names import EMBEDDING, HEAD
from mindgen.weights.weight_files import WeightFiles


@dataclass(frozen=True, slots=True)
class StageMemory:
    """What a pipeline stage takes, in bytes, on all its ranks together."""

    layers: range
    num_ranks: int
    weights: int
    adapters: int
    block_bytes: int

    def describe(self, num_blocks: int) -> str:
        """What each of its ranks takes."""
        sizes = (size // self.num_ranks for size in (self.weights, self.adapters, num_blocks * self.block_bytes))
        weights, adapters, cache = map(_mib, sizes)
        first, last = self.layers[0], self.layers[-1]
        place = f"layer {first}" if first == last else f"layers {first} to {last}"
        if self.num_ranks > 1:
            place += f", each of {self.num_ranks} ranks"
        return f"({place}): weights {weights}, adapters {adapters}, KV cache {cache}"


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Sizes in bytes.

    Attributes:
        stages: the pipeline's; what they take adds up to the rest.
        adapters: what all adapter slots will take once the first adapter is used.
        num_swap_blocks: of host memory, beside the cache's own num_blocks.
    """

    stages: tuple[StageMemory, ...]
    num_blocks: int
    block_size: int
    num_swap_blocks: int
    max_model_len: int

    @property
    def weights(self) -> int:
        return sum(stage.weights for stage in self.stages)

    @property
    def adapters(self) -> int:
        return sum(stage.adapters for stage in self.stages)

    @property
    def block_bytes(self) -> int:
        return sum(stage.block_bytes for stage in self.stages)

    @property
    def num_full_sequences(self) -> float:
        """How many sequences of max_model_len tokens the cache holds."""
        return self.num_blocks / -(-self.max_model_len // self.block_size)

    def __str__(self) -> str:
        swap = f", {_mib(self.num_swap_blocks * self.block_bytes)} to swap" if self.num_swap_blocks else ""
        stages = [f"\n  stage {index} {stage.describe(self.num_blocks)}" for index, stage in enumerate(self.stages)]
        return (
            f"memory: weights {_mib(self.weights)}, adapters {_mib(self.adapters)}, "
            f"KV cache {_mib(self.num_blocks * self.block_bytes)}{swap} "
            f"({self.num_blocks} blocks of {self.block_size} tokens: "
            f"{self.num_full_sequences:.1f} sequences of {self.max_model_len})"
            f"{''.join(stages) if len(stages) > 1 else ''}"
        )


def plan_memory(
    spec: EngineSpec, weights: Sequence[int], adapters: Sequence[int], is_in_host_memory: bool = True
) -> MemoryPlan:
    """The plan for a model whose weights and adapter slots take so many bytes, on all ranks of each pipeline stage.

    Without num_blocks the cache takes what max_num_seqs full-length sequences need, up to memory_utilization.

    Args:
        is_in_host_memory: all of it; else only what is swapped out. How much of a device's is free, MindSpore only
            knows once it uses it.

    Raises:
        ConfigError: the cache cannot hold one block, or the swap space exceeds the free memory.
    """
    config, max_model_len = spec.config, spec.max_model_len
    if not is_in_host_memory and config.num_blocks is None and not isinstance(config.memory_utilization, str):
        raise ConfigError(
            f"engine: on Ascend memory_utilization must be the size of the KV cache, like 20GiB, not the share "
            f"{config.memory_utilization}"
        )
    shard = Shard(config.tensor_parallel_size)
    layout = architectures()[spec.model.architecture].cache_layout(spec.model, shard)
    layer_bytes = layout.token_bytes(shard, spec.dtype) * config.block_size
    stages = tuple(
        StageMemory(layers, shard.num_ranks, own_weights, own_adapters, len(layers) * layer_bytes)
        for layers, own_weights, own_adapters in zip(_stage_layers(spec), weights, adapters, strict=True)
    )
    block_bytes, loaded = sum(stage.block_bytes for stage in stages), sum([*weights, *adapters])
    num_blocks = config.num_blocks
    free = free_memory() * config.nnodes  # which are taken to be alike
    if num_blocks is None:
        limit = _affordable(config.memory_utilization, free, loaded)
        wanted = -(-max_model_len // config.block_size) * config.max_num_seqs
        num_blocks = min(wanted, limit // block_bytes)
        if num_blocks < 1:
            raise ConfigError(
                f"engine: memory_utilization ({config.memory_utilization}) leaves {_mib(limit)} for the KV cache, "
                f"and a block takes {block_bytes} bytes: raise it"
            )
    taken = num_blocks * block_bytes + loaded
    swap = int(config.swap_space * 2**30)
    if not is_in_host_memory and swap > free:
        raise ConfigError(f"engine: swap_space needs {_mib(swap)}, and {_mib(free)} are free: lower it")
    if is_in_host_memory and taken + swap > free:
        raise ConfigError(
            f"engine: weights, adapters, KV cache and swap_space need {_mib(taken + swap)}, and {_mib(free)} are free: "
            "lower num_blocks, memory_utilization or swap_space"
        )
    return MemoryPlan(stages, num_blocks, config.block_size, swap // block_bytes, max_model_len)


def weight_bytes(spec: EngineSpec, weights: WeightFiles) -> list[int]:
    """What the weights take, for each pipeline stage; the last has a copy of an embedding that is tied to the head.

    Raises:
        ModelError, CheckpointError: they are missing or damaged.
    """
    stages, num_ranks = _stage_layers(spec), spec.config.tensor_parallel_size
    if len(stages) == 1:
        return [weights.num_bytes(spec.dtype)]
    if weights.is_sharded:
        return [
            weights.num_bytes(spec.dtype, slice(first, first + num_ranks))
            for first in range(0, len(weights.folders), num_ranks)
        ]
    totals = [0] * len(stages)
    architecture = architectures()[spec.model.architecture]
    for name, tensor in architecture.translate(weights.map(0), spec.model).items():
        for stage in _stages_of(name, architecture, stages, spec.model.tie_word_embeddings):
            totals[stage] += tensor.nbytes
    return totals


def _stages_of(name: str, architecture: Architecture, stages: list[range], has_tied_head: bool) -> list[int]:
    """The stages that have a tensor."""
    layer, last = architecture.layer_of(name), len(stages) - 1
    if layer is not None:
        return [index for index, layers in enumerate(stages) if layer in layers]
    if name == f"{EMBEDDING}.weight":
        return [0, last] if has_tied_head else [0]
    if name == f"{HEAD}.weight" and has_tied_head:
        return []
    return [0] if name in architecture.other_tables else [last]


def _stage_layers(spec: EngineSpec) -> list[range]:
    stages = pipeline_stages(spec.config.pipeline_parallel_size, spec.model.num_layers)
    return [stage.layers(spec.model.num_layers) for stage in stages]


def lora_rank_bytes(spec: EngineSpec, has_tables: bool) -> list[int]:
    """What one rank of an adapter of all linears takes, or of embedding and head too: a vector in and out for each.

    For each pipeline stage, on all its ranks together.
    """
    model, shard = spec.model, Shard(spec.config.tensor_parallel_size)
    linears = architectures()[model.architecture].linears(model, shard)
    layer = sum(inputs.slice_size + outputs.slice_size for inputs, outputs in linears)
    table = model.hidden_size + shard.split(model.vocab_size).slice_size if has_tables else 0
    elements = [len(layers) * layer for layers in _stage_layers(spec)]
    elements[0] += table
    elements[-1] += table
    return [shard.num_ranks * count * STORAGE[spec.dtype]().itemsize for count in elements]


def _affordable(utilization: float | str, free: int, taken: int) -> int:
    if isinstance(utilization, str):
        return parse_size(utilization)
    return max(0, int(free * utilization) - taken)


def _mib(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
