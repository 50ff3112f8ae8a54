"""Runs the network on a batch: builds it, loads it, compiles a graph for each kind of step, feeds it tensors."""

from typing import TypeAlias

import mindspore
import numpy as np

from mindgen.adapters.loader import AdapterWeights
from mindgen.checkpoint.weight_files import WeightFiles
from mindgen.engine.batch import Batch
from mindgen.engine.block_manager import BlockCopy
from mindgen.engine.step_graph import CompiledStep, StepGraph
from mindgen.engine.swap_space import BlockStore
from mindgen.errors import KernelError
from mindgen.kernels import backend, plugin
from mindgen.layers.attention import CacheShape
from mindgen.layers.lora import LoraBlock
from mindgen.layers.parameters import WeightSource
from mindgen.model_config import ModelConfig
from mindgen.models.registry import build_network
from mindgen.parallel.group import ProcessGroup
from mindgen.parallel.layout import WHOLE, Shard
from mindgen.slot_layout import SlotLayout

# Of each linear the blocks of each level.
PackedAdapter: TypeAlias = list[list[LoraBlock | None]]


class Runner:
    """The network on the CPU, compiled by MindSpore.

    Shapes are dynamic, so batches of any size run on one compiled graph; except in float32 on MindSpore's own
    runtime, which compiles once for each shape.

    Args:
        num_positions: rows of the rotary tables, more than any batch has tokens.
        executor: what runs the compiled graphs, one of EXECUTORS.
        num_threads: of the kernels, in the whole process; None is one for each core.
        group: the ranks among which the network is split; None is this process alone.

    Attributes:
        block_store: for KV blocks that have to go.
    """

    def __init__(
        self,
        weights: WeightFiles,
        config: ModelConfig,
        cache: CacheShape,
        num_positions: int,
        dtype: str,
        executor: str = "mindgen",
        num_threads: int | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        self._kernels = plugin.load()
        if num_threads is not None:
            self._kernels.num_threads = num_threads
        # Eager mode is the one in which graphs can be given to a backend.
        mindspore.set_context(mode=mindspore.PYNATIVE_MODE)
        if mindspore.get_context("device_target") != "CPU":  # MindSpore refuses to be told once it has run anything
            mindspore.set_device("CPU")
        self._executor = backend.available(executor)
        self._dynamic = dtype != "float32" or self._executor != "mindspore"
        self._max_blocks = cache.num_blocks
        self._group, self._vocab_size = group, config.vocab_size
        shard = WHOLE if group is None else Shard(group.size, group.rank)
        self._network = build_network(config, cache, num_positions, dtype, shard)
        tensors = weights.map(0 if group is None else group.rank)
        self._network.load(WeightSource(tensors, dtype, shard, weights.is_sharded))
        self._network.set_train(False)
        self.block_store = BlockStore(self._network.caches())
        self._graphs: dict[bool, CompiledStep] = {}

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) sizes of every linear that adapters can target, by Hugging Face module name."""
        linears = self._network.linears()
        return {name: (linear.inputs.size, axis.size) for linear in linears for name, axis in linear.parts.items()}

    def enable_lora(self, layout: SlotLayout) -> None:
        """Makes room for adapters, in place of what room there was."""
        for linear in self._network.linears():
            linear.enable_lora(layout.levels())
        self._graphs.pop(True, None)

    def pack_adapter(self, adapter: AdapterWeights) -> tuple[PackedAdapter, int]:
        """The adapter in the form of a slot, and the bytes that this takes; may be called from any thread."""
        packed = [linear.pack_adapter(adapter.pairs) for linear in self._network.linears()]
        return packed, sum(block.num_bytes for blocks in packed for block in blocks if block is not None)

    def write_adapter(self, slot: int, packed: PackedAdapter) -> None:
        for linear, blocks in zip(self._network.linears(), packed, strict=True):
            linear.write_adapter(slot, blocks)

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        """Copies blocks of all caches."""
        sources, targets = [list(each) for each in zip(*copies, strict=True)]
        for cache in self._network.caches():
            cache[targets] = cache[sources]

    def run(self, batch: Batch) -> np.ndarray:
        """The float32 logits (R, V) of the rows that the batch asks for; good until the next run.

        Of a group, rank 0 gets them; the others their part.

        Raises:
            KernelError: a CPU op refused what the graph gave it.
        """
        graph = self._graph(len(batch.segment_ends))
        tables = batch.block_tables
        if not self._dynamic:  # one shape for all decoding steps
            tables = np.pad(tables, ((0, 0), (0, self._max_blocks - tables.shape[1])), constant_values=-1)
        arrays = [
            batch.input_ids, batch.positions, batch.slot_mapping, tables, batch.context_lens, batch.q_seq_lens,
            batch.q_seq_ends, batch.output_rows,
        ]  # fmt: skip
        arrays += batch.segment_ends
        self._kernels.clear_last_error()
        if self._group is not None:
            self._group.use()
        try:
            logits = graph(arrays)
        except RuntimeError as error:
            self._graphs.clear()  # MindSpore never runs a graph again that has failed once
            reason = self._kernels.last_error
            raise KernelError(reason) if reason else error from error
        return logits if self._group is None else self._group.gather_columns(logits, self._vocab_size)

    def _graph(self, num_levels: int) -> CompiledStep:
        with_adapters = num_levels > 0
        if with_adapters not in self._graphs:
            # On the CPU one graph serves prompts and decoding: FlashAttentionScore does not compile there for any
            # number of sequences.
            graph = StepGraph(self._network, whole_prompts=False, num_levels=num_levels)
            if self._dynamic:
                graph.make_dynamic()
            self._graphs[with_adapters] = CompiledStep(graph, self._executor, self._kernels)
        return self._graphs[with_adapters]
