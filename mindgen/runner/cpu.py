"""Runs the network on the CPU: compiles a graph for each kind of step, and feeds it tensors."""

from collections.abc import Iterable

import numpy as np
from mindspore import Tensor

from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import CheckpointError, KernelError
from mindgen.kernels import backend
from mindgen.kernels.arena import Arena
from mindgen.kernels.dtypes import STORAGE
from mindgen.layers.parameters import MINDSPORE_DTYPES, LoadedWeight, share
from mindgen.parallel.layout import Shard
from mindgen.parallel.rank_place import RankPlace, StagePorts
from mindgen.runner.adapter_rows import AdapterInputs, adapter_arrays, adapter_inputs
from mindgen.runner.batch import Batch, Logits, split_batch
from mindgen.runner.block_store import BlockCopy
from mindgen.runner.device import open_device
from mindgen.runner.local import LocalRunner
from mindgen.runner.slots import NetworkSlots, PackedSlot
from mindgen.runner.spec import RunnerSpec
from mindgen.runner.step_graph import CompiledStep, StepGraph
from mindgen.runner.weight_file import WeightFile
from mindgen.system.memory import drop_pages
from mindgen.weights.watched_files import WatchedFiles
from mindgen.weights.weight_files import WeightFiles

# Weights that stay in the cache which all cores share, so that each thread may read all of them.
_CACHED_BYTES = 16 << 20
_FEWEST_TOKENS = 4  # for a thread of its own


class CpuRunner(LocalRunner):
    """The network on the CPU, compiled by MindSpore.

    Shapes are dynamic, so batches of any size run on one compiled graph; except in float32 on MindSpore's own
    runtime, which compiles once for each shape.
    """

    def __init__(self, spec: RunnerSpec, weights: WeightFiles, place: RankPlace | None = None) -> None:
        rank = 0 if place is None else place.rank
        own = slice(rank, rank + 1) if weights.is_sharded else slice(None)
        self._files = WatchedFiles(weights.files(own))  # before they are mapped
        super().__init__(spec, weights, place)
        self._weight_file: WeightFile | None = None
        self._executor = backend.available(spec.executor)
        self._dynamic = spec.dtype != "float32" or self._executor != "mindspore"
        self._ports = None if place is None else place.ports
        self._weight_bytes = sum(self.report.weights.values())
        self._vocabulary = self._network.vocabulary()
        self._input_dtype = "int32" if self._stage.is_first else spec.dtype
        self._hidden = Tensor(shape=[None, spec.model_config.hidden_size], dtype=MINDSPORE_DTYPES[spec.dtype])
        self._graphs: dict[AdapterInputs, CompiledStep] = {}

    def _open(self, num_ranks: int, rank: int) -> None:
        open_device("CPU", 0, 1)  # to MindSpore each rank is alone here

    def _make_shard(self, num_ranks: int, rank: int) -> Shard:
        return Shard(num_ranks, rank)

    def _make_slots(self) -> NetworkSlots:
        tables = [table for table in self._network.tables() if table is not None]
        return NetworkSlots(self._network.linears(), tables, self._spec.dtype, self._kernels)

    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        self._slots.enable(layout.levels(), moves)
        self._layout = layout
        self._release_graphs(inputs for inputs in self._graphs if inputs.num_levels > 0)

    def write_adapter(self, slot: int, packed: PackedSlot) -> None:
        if self._slots.write(slot, packed):
            self._release_graphs(inputs for inputs in self._graphs if inputs.has_slots)

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        sources, targets = [list(each) for each in zip(*copies, strict=True)]
        for cache in self._caches:
            cache[targets] = cache[sources]

    def run(self, batch: Batch) -> Logits:
        """As a Runner's; ranks above 0 give what they have of the logits, or their hidden states."""
        inputs = adapter_inputs(batch, self._slots.are_plain(batch.slots), self._network.tables())
        if self._ports is not None:
            return Logits(self._run_stage(batch, inputs, self._ports))
        num_parts = self._num_parts(batch.num_tokens) if self._graph(inputs).takes_parts else 1
        parts, order = split_batch(batch, num_parts) if num_parts > 1 else ([batch], None)
        return Logits(self._compute([self._arrays(part, inputs) for part in parts], inputs), order)

    def _run_stage(self, batch: Batch, inputs: AdapterInputs, ports: StagePorts) -> np.ndarray:
        arrays = self._arrays(batch, inputs)
        if ports.source is not None:
            if inputs not in self._graphs:  # compile while the stages before do; what is computed is overwritten
                arrays[0] = np.zeros((batch.num_tokens, self._hidden.shape[1]), STORAGE[self._input_dtype])
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
            self._release_graphs(self._graphs)  # MindSpore never runs a graph again that has failed once
            reason = self._kernels.last_error
            raise KernelError(reason) if reason else error from error
        self._require_unchanged()
        if self._group is None or self._group.size == 1 or not self._stage.is_last:
            return output
        return self._group.gather_columns(output, self._spec.model_config.vocab_size)

    def _require_unchanged(self) -> None:
        """Raises CheckpointError where somebody has written into a file that weights are mapped from."""
        path = self._files.changed()
        if path is None or all(weight.memory.flags.writeable for weight in self._source.taken.values()):
            return
        raise CheckpointError(
            f"{path} was written while a model is served from it, whose weights are not known any more: open the model "
            "again, or update all of its weights; new files are to be written beside old ones, and renamed into place"
        )

    def _num_parts(self, num_tokens: int) -> int:
        """A small network costs its threads less when each computes whole rows than when they share each product."""
        if self._weight_bytes > _CACHED_BYTES or self._executor != "mindgen" or self._group is not None:
            return 1
        return max(1, min(self._kernels.num_threads, num_tokens // _FEWEST_TOKENS))

    def _arrays(self, batch: Batch, inputs: AdapterInputs) -> list[np.ndarray]:
        step = batch.step
        if not self._dynamic:  # one shape for all decoding steps
            padding = self._spec.cache.num_blocks - step.block_tables.shape[1]
            step = step._replace(block_tables=np.pad(step.block_tables, ((0, 0), (0, padding)), constant_values=-1))
        return [*step, *adapter_arrays(batch, self._layout, inputs, self._vocabulary)]

    def _replace(self, weight: LoadedWeight, part: np.ndarray) -> bool:
        if not weight.memory.flags.writeable:
            memory = Arena(weight.memory.nbytes).zeros(weight.memory.shape, weight.memory.dtype.type)
            memory[:] = weight.memory
            weight.memory = memory
            for parameter in weight.parameters:
                share(parameter, weight.memory, self._spec.dtype)
            self._release_graphs(self._graphs)  # which have the addresses of the mapped file
        return self._kernels.copy(np.ascontiguousarray(part), weight.memory[weight.rows])

    def _stored(self, weight: LoadedWeight) -> np.ndarray:
        return weight.memory[weight.rows]

    def drop_caches(self) -> None:
        for cache in self._caches:
            assert isinstance(cache, np.ndarray)
            drop_pages(cache)

    def drop_weights(self) -> int:
        kept = WeightFile([weight.memory for weight in self._source.taken.values()])
        num_bytes = kept.drop()
        self._weight_file = kept
        return num_bytes

    def restore_weights(self) -> int:
        if self._weight_file is None:
            return 0
        num_bytes = self._weight_file.restore()
        self._weight_file = None
        return num_bytes

    def _output_memory(self) -> np.ndarray:
        """Where a graph puts logits or hidden states: that of another rank, if they go there just like that."""
        is_gathered = self._stage.is_last and self._group is not None and self._group.size > 1
        if self._ports is None or self._ports.target is None or is_gathered:
            return np.empty(0, STORAGE["float32" if self._stage.is_last else self._spec.dtype])
        return self._ports.target.memory

    def _release_graphs(self, kinds: Iterable[AdapterInputs]) -> None:
        for inputs in list(kinds):
            self._graphs.pop(inputs).release()

    def close(self) -> None:
        """Gives back what MindSpore keeps of the network."""
        self._release_graphs(self._graphs)

    def _graph(self, inputs: AdapterInputs) -> CompiledStep:
        if inputs not in self._graphs:
            # On the CPU one graph serves prompts and decoding: FlashAttentionScore does not compile there for any
            # number of sequences.
            graph = StepGraph(self._network, whole_prompts=False, adapter_inputs=inputs)
            if self._dynamic:
                graph.make_dynamic(None if self._stage.is_first else self._hidden)
            self._graphs[inputs] = CompiledStep(
                graph, self._executor, self._kernels, self._input_dtype, self._output_memory()
            )
        return self._graphs[inputs]
