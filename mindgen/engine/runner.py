"""Runs the network on a batch: builds it, loads it, compiles a graph for each kind of step, feeds it tensors."""

import mindspore
import numpy as np

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.loader import AdapterWeights
from mindgen.checkpoint.weight_files import WeightFiles
from mindgen.engine.adapter_rows import AdapterInputs, adapter_arrays
from mindgen.engine.batch import Batch, split_batch
from mindgen.engine.block_manager import BlockCopy
from mindgen.engine.network_slots import NetworkSlots, PackedAdapter
from mindgen.engine.step_graph import CompiledStep, StepGraph
from mindgen.engine.swap_space import BlockStore
from mindgen.errors import KernelError
from mindgen.kernels import backend, plugin
from mindgen.layers.attention import CacheShape
from mindgen.layers.parameters import WeightSource
from mindgen.model_config import ModelConfig
from mindgen.models.registry import build_network
from mindgen.parallel.group import ProcessGroup
from mindgen.parallel.layout import WHOLE, Shard
from mindgen.slot_layout import SlotLayout

# Weights that stay in the cache which all cores share, so that each thread may read all of them.
_CACHED_BYTES = 16 << 20
_FEWEST_TOKENS = 4  # for a thread of its own


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
        base_model: what adapters are checked against, besides the sizes of modules.
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
        tensors = self._network.translate(weights.map(0 if group is None else group.rank))
        self._weight_bytes = sum(tensor.data.nbytes for tensor in tensors.values())
        check = None if group is None else group.check
        self._network.load(WeightSource(tensors, dtype, shard, check, weights.is_sharded))
        self._network.set_train(False)
        self._vocabulary = self._network.vocabulary()
        self.base_model = BaseModel(weights.model, tensors, dtype, config.tie_word_embeddings)
        self.block_store = BlockStore(self._network.caches())
        self._graphs: dict[AdapterInputs, CompiledStep] = {}
        self._layout = SlotLayout(())
        self._slots = NetworkSlots(self._network)

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) sizes of everything that adapters can target, by Hugging Face module name."""
        return self._slots.modules()

    def enable_lora(self, layout: SlotLayout) -> None:
        """Makes room for adapters, in place of what room there was."""
        self._slots.enable(layout.levels())
        self._layout = layout
        self._graphs = {inputs: graph for inputs, graph in self._graphs.items() if inputs.num_levels == 0}

    def pack_adapter(self, adapter: AdapterWeights) -> tuple[PackedAdapter, int]:
        """The adapter in the form of a slot, and the bytes that this takes; may be called from any thread."""
        return self._slots.pack(adapter)

    def write_adapter(self, slot: int, packed: PackedAdapter) -> None:
        if self._slots.write(slot, packed):
            self._graphs = {inputs: graph for inputs, graph in self._graphs.items() if not inputs.has_slots}

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        """Copies blocks of all caches."""
        sources, targets = [list(each) for each in zip(*copies, strict=True)]
        for cache in self._network.caches():
            cache[targets] = cache[sources]

    def run(self, batch: Batch) -> np.ndarray:
        """The float32 logits (R, V) of the rows that the batch asks for, in the order of its entries from now on; good
        until the next run. Of a group, rank 0 gets them; the others their part.

        Raises:
            KernelError: a CPU op refused what the graph gave it.
        """
        inputs = self._slots.inputs(batch)
        graph = self._graph(inputs)
        num_parts = self._num_parts(len(batch.input_ids)) if graph.takes_parts else 1
        parts = split_batch(batch, num_parts) if num_parts > 1 else [batch]
        if len(parts) > 1:
            batch.entries = [entry for part in parts for entry in part.entries]
        self._kernels.clear_last_error()
        if self._group is not None:
            self._group.use()
        try:
            logits = graph([self._arrays(part, inputs) for part in parts])
        except RuntimeError as error:
            self._graphs.clear()  # MindSpore never runs a graph again that has failed once
            reason = self._kernels.last_error
            raise KernelError(reason) if reason else error from error
        return logits if self._group is None else self._group.gather_columns(logits, self._vocab_size)

    def _num_parts(self, num_tokens: int) -> int:
        """A small network costs its threads less when each computes whole rows than when they share each product."""
        if self._weight_bytes > _CACHED_BYTES or self._executor != "mindgen" or self._group is not None:
            return 1
        return max(1, min(self._kernels.num_threads, num_tokens // _FEWEST_TOKENS))

    def _arrays(self, batch: Batch, inputs: AdapterInputs) -> list[np.ndarray]:
        tables = batch.block_tables
        if not self._dynamic:  # one shape for all decoding steps
            tables = np.pad(tables, ((0, 0), (0, self._max_blocks - tables.shape[1])), constant_values=-1)
        return [
            batch.input_ids, batch.positions, batch.slot_mapping, tables, batch.context_lens, batch.q_seq_lens,
            batch.q_seq_ends, batch.output_rows,
            *adapter_arrays(batch, self._layout, inputs, self._vocabulary),
        ]  # fmt: skip

    def _graph(self, inputs: AdapterInputs) -> CompiledStep:
        if inputs not in self._graphs:
            # On the CPU one graph serves prompts and decoding: FlashAttentionScore does not compile there for any
            # number of sequences.
            graph = StepGraph(self._network, whole_prompts=False, adapter_inputs=inputs)
            if self._dynamic:
                graph.make_dynamic()
            self._graphs[inputs] = CompiledStep(graph, self._executor, self._kernels)
        return self._graphs[inputs]
