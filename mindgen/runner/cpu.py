"""Runs the network on a batch: builds it, loads it, compiles a graph for each kind of step, feeds it tensors."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Tensor

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.dtypes import STORAGE
from mindgen.errors import KernelError
from mindgen.kernels import backend, plugin
from mindgen.layers.attention import CacheShape
from mindgen.layers.parameters import MINDSPORE_DTYPES, WeightSource
from mindgen.models.causal_lm import refuse_unknown
from mindgen.models.registry import build_network
from mindgen.parallel.layout import WHOLE, Shard
from mindgen.parallel.rank_place import RankPlace, StagePorts
from mindgen.parallel.stage import ONLY_STAGE
from mindgen.runner.adapter_rows import AdapterInputs, adapter_arrays, adapter_inputs
from mindgen.runner.batch import Batch, split_batch
from mindgen.runner.block_store import BlockCopy, BlockStore
from mindgen.runner.device import open_device
from mindgen.runner.slots import NetworkSlots, PackedAdapter
from mindgen.runner.step_graph import CompiledStep, StepGraph
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles

# Weights that stay in the cache which all cores share, so that each thread may read all of them.
_CACHED_BYTES = 16 << 20
_FEWEST_TOKENS = 4  # for a thread of its own


@dataclass(frozen=True, slots=True)
class RankReport:
    """What a rank has of the network.

    Attributes:
        modules: (in, out) sizes of what adapters can target, by Hugging Face module name.
        weights: the bytes of each tensor of the checkpoint that it has taken, by name.
        unknown: the tensors that it has no use for.
        cache_bytes: of its layers' keys and values.
    """

    modules: dict[str, tuple[int, int]]
    weights: dict[str, int]
    unknown: list[str]
    cache_bytes: int


class Runner:
    """The network on the CPU, compiled by MindSpore.

    Shapes are dynamic, so batches of any size run on one compiled graph; except in float32 on MindSpore's own
    runtime, which compiles once for each shape.

    Args:
        num_positions: rows of the rotary tables, more than any batch has tokens.
        executor: what runs the compiled graphs, one of EXECUTORS.
        num_threads: of the kernels, in the whole process; None is one for each core.
        place: among the ranks that share the network; None is this process alone.

    Attributes:
        report: of what it has loaded.
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
        place: RankPlace | None = None,
    ) -> None:
        self._kernels = plugin.load()
        if num_threads is not None:
            self._kernels.num_threads = num_threads
        open_device("CPU", 0, 1)  # to MindSpore each rank is alone here
        self._executor = backend.available(executor)
        self._dynamic = dtype != "float32" or self._executor != "mindspore"
        self._max_blocks = cache.num_blocks
        self._vocab_size = config.vocab_size
        self._group = None if place is None else place.group
        self._ports = None if place is None else place.ports
        self._stage = ONLY_STAGE if place is None else place.stage
        shard = WHOLE if self._group is None else Shard(self._group.size, self._group.rank)
        self._network = build_network(config, cache, num_positions, dtype, shard, self._stage)
        tensors = self._network.translate(weights.map(0 if place is None else place.rank))
        check = None if self._group is None else self._group.check
        source = WeightSource(tensors, dtype, shard, check, weights.is_sharded)
        unknown = self._network.load(source)
        if self._stage == ONLY_STAGE:
            refuse_unknown(config.architecture, unknown)
        tables = [table for table in self._network.tables() if table is not None]
        self._slots = NetworkSlots(self._network.linears(), tables, dtype, self._kernels)
        cache_bytes = sum(cache.nbytes for cache in self._network.caches())
        self.report = RankReport(self._slots.modules, source.taken, unknown, cache_bytes)
        self._weight_bytes = sum(source.taken.values())
        self._network.set_train(False)
        self._vocabulary = self._network.vocabulary()
        self._input_dtype = "int32" if self._stage.is_first else dtype
        self._output_dtype = "float32" if self._stage.is_last else dtype
        self._hidden = Tensor(shape=[None, config.hidden_size], dtype=MINDSPORE_DTYPES[dtype])
        self.base_model = BaseModel(weights.model, tensors, dtype, config.tie_word_embeddings, self.report.modules)
        self.block_store = BlockStore(self._network.caches())
        self._graphs: dict[AdapterInputs, CompiledStep] = {}
        self._layout = SlotLayout(())

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) sizes of everything that adapters can target, by Hugging Face module name."""
        return self.report.modules

    def enable_lora(self, layout: SlotLayout, moves: Sequence[SlotMove] = ()) -> None:
        """Makes room for adapters, in place of what room there was; what has been packed fits no longer.

        Args:
            moves: the adapters that come along.
        """
        self._slots.enable(layout.levels(), moves)
        self._layout = layout
        self._graphs = {inputs: graph for inputs, graph in self._graphs.items() if inputs.num_levels == 0}

    def pack_adapter(self, adapter: AdapterWeights) -> tuple[PackedAdapter, int]:
        """The adapter in the form of a slot, and the bytes that this takes; may be called from any thread."""
        packed = self._slots.pack(adapter)
        return packed, packed.num_bytes

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
        until the next run.

        Of several ranks, rank 0 gets them; the others what they have of them, or their hidden states.

        Raises:
            KernelError: a CPU op refused what the graph gave it, or the ranks have been ended.
        """
        inputs = adapter_inputs(batch, self._slots.are_plain(batch.slots), self._network.tables())
        if self._ports is not None:
            return self._run_stage(batch, inputs, self._ports)
        num_parts = self._num_parts(len(batch.input_ids)) if self._graph(inputs).takes_parts else 1
        parts = split_batch(batch, num_parts) if num_parts > 1 else [batch]
        if len(parts) > 1:
            batch.entries = [entry for part in parts for entry in part.entries]
        return self._compute([self._arrays(part, inputs) for part in parts], inputs)

    def _run_stage(self, batch: Batch, inputs: AdapterInputs, ports: StagePorts) -> np.ndarray:
        arrays = self._arrays(batch, inputs)
        if ports.source is not None:
            if inputs not in self._graphs:  # compile while the stages before do; what is computed is overwritten
                arrays[0] = np.zeros((len(batch.input_ids), self._hidden.shape[1]), STORAGE[self._input_dtype])
                self._compute([arrays], inputs)
            arrays[0] = ports.source.read()
        output = self._compute([arrays], inputs)
        if ports.target is not None:
            ports.target.write(output)
        if ports.results is None:
            return output
        try:
            return ports.results.read()
        except EOFError:
            assert self._group is not None
            self._group.check()
            raise

    def _compute(self, parts: list[list[np.ndarray]], inputs: AdapterInputs) -> np.ndarray:
        self._kernels.clear_last_error()
        if self._group is not None:
            self._group.use()
        try:
            output = self._graph(inputs)(parts)
        except RuntimeError as error:
            self._graphs.clear()  # MindSpore never runs a graph again that has failed once
            reason = self._kernels.last_error
            raise KernelError(reason) if reason else error from error
        if self._group is None or self._group.size == 1 or not self._stage.is_last:
            return output
        return self._group.gather_columns(output, self._vocab_size)

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

    def _output_memory(self) -> np.ndarray | None:
        """Where a graph puts what goes to another rank just like that."""
        if self._ports is None or self._ports.target is None:
            return None
        is_gathered = self._stage.is_last and self._group is not None and self._group.size > 1
        return None if is_gathered else self._ports.target.memory

    def _graph(self, inputs: AdapterInputs) -> CompiledStep:
        if inputs not in self._graphs:
            # On the CPU one graph serves prompts and decoding: FlashAttentionScore does not compile there for any
            # number of sequences.
            graph = StepGraph(self._network, whole_prompts=False, adapter_inputs=inputs)
            if self._dynamic:
                graph.make_dynamic(None if self._stage.is_first else self._hidden)
            self._graphs[inputs] = CompiledStep(
                graph, self._executor, self._kernels, self._input_dtype, self._output_dtype, self._output_memory()
            )
        return self._graphs[inputs]
