"""Runs the network on a device with memory of its own, on MindSpore's runtime: an Ascend NPU, or several."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import AdapterError, KernelError, ModelError
from mindgen.kernels import backend
from mindgen.kernels.dtypes import STORAGE
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.device_rows import DeviceRows
from mindgen.layers.parameters import LoadedWeight, WeightSource, share
from mindgen.layers.step_inputs import StepInputs
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.parallel.rank_place import RankPlace
from mindgen.runner.adapter_rows import AdapterInputs, adapter_arrays, adapter_inputs
from mindgen.runner.batch import Batch, Logits, has_whole_prompts_only
from mindgen.runner.block_store import BlockCopy
from mindgen.runner.local import LocalRunner
from mindgen.runner.semi_auto import NamesAndLayouts, compile_sliced
from mindgen.runner.slots import DeviceSlots, NetworkSlots, PackedSlot
from mindgen.runner.spec import RunnerSpec
from mindgen.runner.step_graph import StepGraph
from mindgen.system import environment
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.weight_files import WeightFiles


class StepKind(NamedTuple):
    """What a graph is compiled for."""

    whole_prompts: bool
    adapters: AdapterInputs


class DeviceRunner(LocalRunner):
    """As a Runner, with weights, KV cache and adapter slots in the device's memory.

    Steps of whole prompts only run FlashAttentionScore, all others (decoding, chunks, cached prefixes, and mixed with
    them prompts) PagedAttention. Several ranks have the network sliced by MindSpore's compiler, and every one of them
    gets all logits.

    Args:
        spec: whose device is Ascend; or CPU, where mindgen's op plugin has these ops, to test all but what only a card
            has.
        place: in a group that MindSpore knows too.
    """

    def __init__(self, spec: RunnerSpec, weights: WeightFiles, place: RankPlace | None = None) -> None:
        if spec.dtype == "float32":
            raise ModelError("Ascend's attention ops take float16 and bfloat16, not float32: set dtype")
        self._steps: dict[StepKind, Callable[..., Tensor]] = {}
        self._graphs: dict[StepKind, backend.CompiledGraph] = {}  # of steps that no compiler slices
        self._weight_layouts: dict[str, TensorLayout] = {}
        super().__init__(spec, weights, place)
        for cached in _on_device(self._caches):
            cached.allocate()

    def _make_shard(self, num_ranks: int, rank: int) -> Shard:
        return Shard(num_ranks, rank, sliced_by_compiler=True)

    def _make_slots(self) -> NetworkSlots:
        tables = [table for table in self._network.tables() if table is not None]
        return DeviceSlots(self._network.linears(), tables, self._spec.dtype, self._kernels)

    def _load(self, weights: WeightFiles) -> WeightSource:
        if self._shard.num_ranks > 1:
            names = NamesAndLayouts(self._spec.dtype, self._shard)
            self._network.load(names)
            self._weight_layouts = names.layouts
            self._step(StepKind(False, AdapterInputs()), [*_example(self._spec.cache)])  # slices the weights
        return super()._load(weights)

    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        # On a card every row belongs to a group: those of the base model to a last slot, which stays zero.
        self._slots.enable([level._replace(num_slots=level.num_slots + 1) for level in layout.levels()], moves)
        self._layout = layout
        self._release_steps(kind for kind in self._steps if kind.adapters.num_levels > 0)

    def pack_adapter(self, adapter: AdapterWeights) -> PackedSlot:
        embedding, _ = self._network.tables()
        assert embedding is not None  # there are no stages on a device
        refused = sorted(embedding.spec.parts.keys() & adapter.pairs.keys())
        if refused:
            raise AdapterError(
                f"adapter {adapter.adapter_id}: LoRA on {refused[0]} is not served on {self._spec.device}: merge it "
                f"with `mindgen adapters merge`, or set device_target to CPU"
            )
        return super().pack_adapter(adapter)

    def write_adapter(self, slot: int, packed: PackedSlot) -> None:
        if self._slots.write(slot, packed):
            self._release_steps(kind for kind in self._steps if kind.adapters.has_slots)

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        sources, targets = [list(each) for each in zip(*copies, strict=True)]
        for cache in _on_device(self._caches):
            cache.copy(sources, targets)

    def run(self, batch: Batch) -> Logits:
        """As a Runner's, on every rank."""
        step, arrays = self.compile(batch)
        self._kernels.clear_last_error()
        try:
            logits = step(*map(Tensor.from_numpy, arrays)).asnumpy()
        except RuntimeError as error:
            self._release_steps(self._steps)  # MindSpore never runs a graph again that has failed once
            raise KernelError(self._kernels.last_error or str(error).split("\n\n")[0].strip()) from error
        return Logits(logits[:, : self._spec.model_config.vocab_size])  # the compiler's slices may be padded

    def compile(self, batch: Batch) -> tuple[Callable[..., Tensor], list[np.ndarray]]:
        """The graph that serves the batch, compiled unless it has been, and what it is given.

        Raises:
            ModelError: MindSpore does not slice the network as its layers declare.
        """
        inputs = adapter_inputs(batch, self._slots.are_plain(batch.slots), self._network.tables())
        kind = StepKind(has_whole_prompts_only(batch.step), inputs)
        arrays = self._arrays(batch, kind.adapters)
        return self._step(kind, arrays), arrays

    def _arrays(self, batch: Batch, inputs: AdapterInputs) -> list[np.ndarray]:
        of_adapters = adapter_arrays(batch, self._layout, inputs, self._network.vocabulary())
        levels, others = of_adapters[: inputs.num_levels], of_adapters[inputs.num_levels :]
        first_head = len(others) - inputs.head_levels
        return [
            *batch.step,
            *(np.append(ends, batch.num_tokens) for ends in levels),
            *others[:first_head],
            *(np.append(ends, len(batch.step.output_rows)) for ends in others[first_head:]),
        ]

    def _replace(self, weight: LoadedWeight, part: np.ndarray) -> bool:
        dtype = self._spec.dtype
        whole = self._whole(weight)
        whole[weight.rows] = part
        for parameter in weight.parameters:
            share(parameter, whole, dtype)
        return self._kernels.are_same(np.ascontiguousarray(self._stored(weight)), np.ascontiguousarray(part))

    def _stored(self, weight: LoadedWeight) -> np.ndarray:
        return self._whole(weight)[weight.rows]

    def _whole(self, weight: LoadedWeight) -> np.ndarray:
        """A copy of what the device has, with the weights that lie beside it."""
        return np.array(weight.parameters[0].asnumpy()).view(STORAGE[self._spec.dtype])

    def _step(self, kind: StepKind, arrays: list[np.ndarray]) -> Callable[..., Tensor]:
        """The compiled graph; the memory of adapters that it uses is there afterwards."""
        if kind not in self._steps:
            graph = StepGraph(self._network, *kind)
            if self._is_dynamic(kind):
                graph.make_dynamic()
            if self._shard.num_ranks == 1:
                self._steps[kind] = self._graphs[kind] = backend.CompiledGraph(graph, "mindspore")
            else:
                declared = self._weight_layouts | self._network.state_layouts()
                self._steps[kind] = compile_sliced(graph, arrays, declared, self._shard)
            self._allocate(kind.adapters)
        return self._steps[kind]

    def _release_steps(self, kinds: Iterable[StepKind]) -> None:
        """What the compiler has sliced ends with its cell; what it has not, MindSpore would keep."""
        for kind in list(kinds):
            del self._steps[kind]
            if kind in self._graphs:
                self._graphs.pop(kind).release()

    def close(self) -> None:
        """Gives back what MindSpore keeps of the network."""
        self._release_steps(self._steps)

    def _allocate(self, inputs: AdapterInputs) -> None:
        _, head = self._network.tables()
        assert head is not None
        layers = self._network.linears() if inputs.num_levels else []
        for layer in [*layers, head] if inputs.head_levels else layers:
            for memory in _on_device(layer.memories()):
                memory.allocate()

    def _is_dynamic(self, kind: StepKind) -> bool:
        """Whether one graph serves all shapes: not on the CPU's FlashAttentionScore, nor in MindSpore's dry run."""
        return not environment.is_dry_run() if self._spec.device == "Ascend" else not kind.whole_prompts


def _on_device(memories: list[RowMemory]) -> list[DeviceRows]:
    return [memory for memory in memories if isinstance(memory, DeviceRows)]


def _example(cache: CacheShape) -> StepInputs[np.ndarray]:
    """The inputs of a step that decodes three sequences: a number that no ranks divide, as any number may come."""
    three = np.arange(3, dtype=np.int32)
    return StepInputs(
        inputs=three,
        context_lens=three + 1,
        q_seq_lens=np.ones(3, np.int32),
        q_seq_ends=three + 1,
        positions=three,
        slot_mapping=three * np.int32(cache.block_size),
        block_tables=three[:, None],
        output_rows=three,
    )
