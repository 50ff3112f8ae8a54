"""Runs the network on a device with memory of its own, on MindSpore's runtime: an Ascend NPU, or several."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

from mindgen.adapters.base_model import BaseModel
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLayout, SlotMove
from mindgen.errors import AdapterError, KernelError, ModelError
from mindgen.kernels import backend, plugin
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.attention import CacheShape
from mindgen.layers.device_rows import DeviceRows
from mindgen.layers.parameters import WeightSource
from mindgen.models.causal_lm import refuse_unknown
from mindgen.models.registry import build_network
from mindgen.parallel.group import ProcessGroup
from mindgen.parallel.layout import Shard, TensorLayout
from mindgen.runner.adapter_rows import AdapterInputs, adapter_arrays, adapter_inputs
from mindgen.runner.batch import Batch, has_whole_prompts_only
from mindgen.runner.block_store import BlockCopy, BlockStore
from mindgen.runner.cpu import RankReport
from mindgen.runner.device import open_device
from mindgen.runner.semi_auto import NamesAndLayouts, compile_sliced
from mindgen.runner.slots import DeviceSlots, PackedAdapter
from mindgen.runner.step_graph import StepGraph
from mindgen.system import environment
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import WeightFiles


class StepKind(NamedTuple):
    """What a graph is compiled for."""

    whole_prompts: bool
    adapters: AdapterInputs


class DeviceRunner:
    """As a Runner, with weights, KV cache and adapter slots in the device's memory.

    Steps of whole prompts only run FlashAttentionScore, all others (decoding, chunks, cached prefixes, and mixed with
    them prompts) PagedAttention. Several ranks have the network sliced by MindSpore's compiler, and every one of them
    gets all logits.

    Args:
        num_positions: rows of the rotary tables, more than any batch has tokens.
        device: Ascend; or CPU, where mindgen's op plugin has these ops, to test all but what only a card has.
        num_threads: of the CPU's kernels, for sampling; None is one for each core.
        group: the ranks that share the network, as MindSpore knows them too; None is this process alone.

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
        device: str = "Ascend",
        num_threads: int | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        if dtype == "float32":
            raise ModelError("Ascend's attention ops take float16 and bfloat16, not float32: set dtype")
        self._kernels = plugin.load()
        if num_threads is not None:
            self._kernels.num_threads = num_threads
        size, rank = (1, 0) if group is None else (group.size, group.rank)
        open_device(device, rank, size)
        self._device = device
        self._vocab_size = config.vocab_size
        self._shard = Shard(size, rank, sliced_by_compiler=True)
        self._network = build_network(config, cache, num_positions, dtype, self._shard)
        self._network.set_train(False)
        self._slots = DeviceSlots(self._network.linears(), [*self._network.tables()], dtype, self._kernels)
        self._layout = SlotLayout(())
        self._steps: dict[StepKind, Callable[..., Tensor]] = {}
        self._weight_layouts: dict[str, TensorLayout] = {}
        if size > 1:
            names = NamesAndLayouts(dtype, self._shard)
            self._network.load(names)
            self._weight_layouts = names.layouts
            self._step(StepKind(False, AdapterInputs()), _example(cache))  # slices the weights
        tensors = self._network.translate(weights.map(rank))
        check = None if group is None else group.check
        source = WeightSource(tensors, dtype, self._shard.sliced, check, weights.is_sharded)
        refuse_unknown(config.architecture, self._network.load(source))
        self._caches = _on_device(self._network.caches())
        for cached in self._caches:
            cached.allocate()
        cache_bytes = sum(cached.nbytes for cached in self._caches)
        self.report = RankReport(self._slots.modules, source.taken, [], cache_bytes)
        self.base_model = BaseModel(weights.model, tensors, dtype, config.tie_word_embeddings, self.report.modules)
        self.block_store = BlockStore([*self._caches])

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) sizes of everything that adapters can target, by Hugging Face module name."""
        return self.report.modules

    def enable_lora(self, layout: SlotLayout, moves: Sequence[SlotMove] = ()) -> None:
        """As a Runner's."""
        # On a card every row belongs to a group: those of the base model to a last slot, which stays zero.
        self._slots.enable([level._replace(num_slots=level.num_slots + 1) for level in layout.levels()], moves)
        self._layout = layout
        self._steps = {kind: step for kind, step in self._steps.items() if kind.adapters.num_levels == 0}

    def pack_adapter(self, adapter: AdapterWeights) -> tuple[PackedAdapter, int]:
        """The adapter in the form of a slot, and the bytes that this takes; may be called from any thread.

        Raises:
            AdapterError: it has something that is not served on the device.
        """
        embedding, _ = self._network.tables()
        refused = sorted(embedding.parts.keys() & adapter.pairs.keys())
        if refused:
            raise AdapterError(
                f"adapter {adapter.adapter_id}: LoRA on {refused[0]} is not served on {self._device}: merge it with "
                f"`mindgen adapters merge`, or set device_target to CPU"
            )
        packed = self._slots.pack(adapter)
        return packed, packed.num_bytes

    def write_adapter(self, slot: int, packed: PackedAdapter) -> None:
        if self._slots.write(slot, packed):
            self._steps = {kind: step for kind, step in self._steps.items() if not kind.adapters.has_slots}

    def copy_blocks(self, copies: list[BlockCopy]) -> None:
        """Copies blocks of all caches."""
        sources, targets = [list(each) for each in zip(*copies, strict=True)]
        for cache in self._caches:
            cache.copy(sources, targets)

    def run(self, batch: Batch) -> np.ndarray:
        """The float32 logits (R, V) of the rows that the batch asks for, on every rank.

        Raises:
            KernelError: MindSpore's runtime, or an op, refused what the graph gave it.
        """
        step, arrays = self.compile(batch)
        self._kernels.clear_last_error()
        try:
            logits = step(*map(Tensor.from_numpy, arrays)).asnumpy()
        except RuntimeError as error:
            self._steps.clear()  # MindSpore never runs a graph again that has failed once
            raise KernelError(self._kernels.last_error or str(error).split("\n\n")[0].strip()) from error
        return logits[:, : self._vocab_size]  # the compiler's slices may be padded

    def compile(self, batch: Batch) -> tuple[Callable[..., Tensor], list[np.ndarray]]:
        """The graph that serves the batch, compiled unless it has been, and what it is given.

        Raises:
            ModelError: MindSpore does not slice the network as its layers declare.
        """
        inputs = adapter_inputs(batch, self._slots.are_plain(batch.slots), self._network.tables())
        kind = StepKind(has_whole_prompts_only(batch), inputs)
        arrays = self._arrays(batch, kind.adapters)
        return self._step(kind, arrays), arrays

    def _arrays(self, batch: Batch, inputs: AdapterInputs) -> list[np.ndarray]:
        of_adapters = adapter_arrays(batch, self._layout, inputs, self._network.vocabulary())
        levels, others = of_adapters[: inputs.num_levels], of_adapters[inputs.num_levels :]
        first_head = len(others) - inputs.head_levels
        return [
            batch.input_ids, batch.positions, batch.slot_mapping, batch.block_tables, batch.context_lens,
            batch.q_seq_lens, batch.q_seq_ends, batch.output_rows,
            *(np.append(ends, len(batch.input_ids)) for ends in levels),
            *others[:first_head],
            *(np.append(ends, len(batch.output_rows)) for ends in others[first_head:]),
        ]  # fmt: skip

    def _step(self, kind: StepKind, arrays: list[np.ndarray]) -> Callable[..., Tensor]:
        """The compiled graph; the memory of adapters that it uses is there afterwards."""
        if kind not in self._steps:
            graph = StepGraph(self._network, *kind)
            if self._is_dynamic(kind):
                graph.make_dynamic()
            if self._shard.num_ranks == 1:
                self._steps[kind] = backend.compile_graph(graph, "mindspore")
            else:
                declared = self._weight_layouts | self._network.state_layouts()
                self._steps[kind] = compile_sliced(graph, arrays, declared, self._shard)
            self._allocate(kind.adapters)
        return self._steps[kind]

    def _allocate(self, inputs: AdapterInputs) -> None:
        _, head = self._network.tables()
        layers = self._network.linears() if inputs.num_levels else []
        for layer in [*layers, head] if inputs.head_levels else layers:
            for memory in _on_device(layer.memories()):
                memory.allocate()

    def _is_dynamic(self, kind: StepKind) -> bool:
        """Whether one graph serves all shapes: not on the CPU's FlashAttentionScore, nor in MindSpore's dry run."""
        return not environment.is_dry_run() if self._device == "Ascend" else not kind.whole_prompts


def _on_device(memories: list[RowMemory]) -> list[DeviceRows]:
    return [memory for memory in memories if isinstance(memory, DeviceRows)]


def _example(cache: CacheShape) -> list[np.ndarray]:
    """The inputs of a step that decodes three sequences: a number that no ranks divide, as any number may come."""
    three = np.arange(3, dtype=np.int32)
    ones = np.ones(3, np.int32)
    return [three, three, three * np.int32(cache.block_size), three[:, None], three + 1, ones, three + 1, three]
