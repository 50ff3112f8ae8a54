"""What linears, embedding and head have in common: adapters change their outputs, row by row."""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.adapters.formats.peft import LoraPair, OutputChange
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slicing import slice_pair
from mindgen.adapters.slot_layout import SlotLevel, SlotMove
from mindgen.kernels.arena import Arena
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.lora import LoraLevel
from mindgen.layers.packed_form import LoraBlock, PackedForm
from mindgen.layers.parameters import MINDSPORE_DTYPES
from mindgen.layers.slot_vectors import SlotVectors
from mindgen.layers.spec import LayerSpec
from mindgen.parallel.layout import Axis, TensorLayout

# Which rows are whose, a plain tuple for MindSpore's compiler:
#   segment_ends  of each level, as in LoraLevel; none for a batch without adapters
#   slots         (T,) of each row, E for the base model's; None unless an adapter of the batch has more than LoRA
AdapterRows: TypeAlias = tuple[tuple[Tensor, ...], Tensor | None]


class OutputVectors(NamedTuple):
    """What an adapter does to a layer's outputs besides LoRA, in this process; (out,) as in OutputChange."""

    scale: np.ndarray | None = None
    shift: np.ndarray | None = None


class AdaptedLayer(nn.Cell):
    """y (T, out) = (f(x) + the LoRA of each row's adapter) * its scale + its shift.

    Attributes:
        is_partial: whether f(x) and LoRA are to be added up over the ranks, which split the inputs.
        has_lora: whether an adapter has brought LoRA for this layer yet.
    """

    def __init__(self, spec: LayerSpec, output_dtype: str) -> None:
        super().__init__()
        self.spec = spec
        axes, shard = tuple(spec.parts.values()), spec.shard
        sizes = tuple(shard.size(axis) for axis in axes)  # in this process
        self.is_partial = bool(spec.inputs.split_by) and not shard.sliced_by_compiler
        if self.is_partial:
            self.all_reduce = ops.AllReduce()
        self.output_dtype = output_dtype
        self.casts = output_dtype != spec.dtype
        self.mindspore_dtype = MINDSPORE_DTYPES[output_dtype]
        self.level_type: type[LoraLevel] = LoraLevel
        self.lora = nn.CellList([])
        self.has_lora = False
        # One each, once an adapter has them.
        self.scale, self.shift = nn.CellList([]), nn.CellList([])
        self.has_scale = self.has_shift = False
        self.num_slots = 0
        # Only logits are cast; every rank gets all from MindSpore's compiler.
        self.outputs = Axis(sum(sizes)) if self.casts or len(axes) > 1 else axes[0]
        by_outputs = (1, shard.cuts(self.outputs))
        self.cast = ops.Cast().shard(((1, 1),))
        self.add = ops.Add().shard((by_outputs, by_outputs))
        self.mul = ops.Mul().shard((by_outputs, by_outputs))

    def enable_lora(self, levels: list[SlotLevel], arena: Arena | None = None, moves: Sequence[SlotMove] = ()) -> None:
        """Makes room for adapters, in place of what room there was; to be called before the network is compiled.

        Args:
            arena: for the slots; None gives every weight a place of its own.
            moves: the adapters that come along.
        """
        before = self.lora, self.scale, self.shift, self.has_lora
        self.lora = nn.CellList([self.level_type(self.spec, level, arena) for level in levels])
        self._name_uniquely(self.lora, "lora")
        self.num_slots = max((level.num_slots for level in levels), default=0)
        self.scale, self.shift = nn.CellList([]), nn.CellList([])
        self.has_lora = self.has_scale = self.has_shift = False
        if moves:
            self._take_over(*before, moves)

    def _take_over(
        self, lora: nn.CellList, scale: nn.CellList, shift: nn.CellList, has_lora: bool, moves: Sequence[SlotMove]
    ) -> None:
        """From the slots before."""
        self.has_lora = has_lora
        self._make_vectors(bool(scale), bool(shift))
        for source, target, rank in moves:
            for old, new in zip(lora, self.lora, strict=False):
                if new.first_rank < rank:
                    for from_memory, to_memory in zip(old.memories(), new.memories(), strict=True):
                        to_memory[target] = from_memory[[source]][0]
            for old, new in zip((*scale, *shift), (*self.scale, *self.shift), strict=True):
                new.memory[target] = old.memory[[source]][0]

    def layouts(self) -> dict[str, TensorLayout]:
        """Of the weights as (out, in), by Hugging Face module name."""
        return {name: self.spec.shard.layout(axis, self.spec.inputs) for name, axis in self.spec.parts.items()}

    def state_layouts(self) -> dict[str, TensorLayout]:
        """Of what adapters have here, by the names of MindSpore's parameters."""
        layouts: dict[str, TensorLayout] = {}
        for part in (*self.lora, *self.scale, *self.shift):
            layouts |= part.layouts()
        return layouts

    def memories(self) -> list[RowMemory]:
        """Where adapters are written to."""
        vectors = [vectors.memory for vectors in (*self.scale, *self.shift)]
        return [memory for level in self.lora for memory in level.memories()] + vectors

    def own_pairs(self, adapter: AdapterWeights) -> dict[str, LoraPair]:
        """This process's part of what an adapter has for this layer."""
        found = {name: adapter.pairs[name] for name in self.spec.parts if name in adapter.pairs}
        if self.spec.shard.num_ranks == 1 or adapter.is_sliced:
            return found
        layouts = self.layouts()
        return {name: slice_pair(pair, layouts[name], self.spec.shard.sliced) for name, pair in found.items()}

    def plan(self, own: dict[str, LoraPair], form: PackedForm) -> list[LoraBlock | None]:
        """Room in a form for what an adapter has for this layer, a block for each level."""
        pairs = [(name, own.get(name)) for name in self.spec.parts]
        return [level.plan(pairs, form) for level in self.lora]

    def own_vectors(self, outputs: dict[str, OutputChange]) -> OutputVectors:
        changes = [outputs[name] if name in outputs else OutputChange(None, None) for name in self.spec.parts]
        return OutputVectors(
            self._side_by_side([change.scale for change in changes], 1.0),
            self._side_by_side([change.shift for change in changes], 0.0),
        )

    def write_vectors(self, slot: int, vectors: OutputVectors) -> bool:
        """Puts an adapter's into a slot; whether graphs with scales or shifts are too old now."""
        had = (self.has_scale, self.has_shift)
        self._make_vectors(vectors.scale is not None, vectors.shift is not None)
        for cells, values in ((self.scale, vectors.scale), (self.shift, vectors.shift)):
            for cell in cells:
                cell.write_slot(slot, values)
        return had != (self.has_scale, self.has_shift)

    def slot_parts(self, slot: int, blocks: list[LoraBlock | None]) -> list[tuple[int | None, RowMemory]]:
        """What fills a slot with the blocks of a form: the place of each part, as in LoraLevel, and its memory."""
        if not self.has_lora:
            return []
        num_levels = sum(slot < level.num_slots for level in self.lora)
        assert not any(blocks[num_levels:]), "the adapter's rank is above the slot's"
        levels = zip(self.lora, blocks[:num_levels], strict=False)
        return [part for level, block in levels for part in level.slot_parts(block)]

    def add_lora(self, x: Tensor, y: Tensor, segment_ends: tuple[Tensor, ...]) -> Tensor:
        """x (T, in) or what the levels take, y (T, out)."""
        for index, ends in enumerate(segment_ends):
            delta = self.lora[index](x, ends)
            if self.casts:
                delta = self.cast(delta, self.mindspore_dtype)
            y = self.add(y, delta)
        return y

    def scale_and_shift(self, y: Tensor, slots: Tensor | None) -> Tensor:
        if slots is not None:
            if self.has_scale:
                y = self.mul(y, self.scale[0](slots))
            if self.has_shift:
                y = self.add(y, self.shift[0](slots))
        return y

    def _side_by_side(self, values: list[np.ndarray | None], default: float) -> np.ndarray | None:
        if all(part is None for part in values):
            return None
        if self.casts and self.spec.shard.sliced_by_compiler:
            (whole,) = values
            assert whole is not None
            return np.pad(whole, (0, self.outputs.size - len(whole)))
        shard = self.spec.shard.sliced
        filled = [
            np.full(shard.size(axis), default, np.float32) if part is None else shard.cut(part, shard.layout(axis))
            for part, axis in zip(values, self.spec.parts.values(), strict=True)
        ]
        return np.concatenate(filled)

    def _make_vectors(self, wants_scale: bool, wants_shift: bool) -> None:
        if wants_scale and not self.has_scale:
            self.scale, self.has_scale = self._vectors(1.0), True
            self._name_uniquely(self.scale, "scale")
        if wants_shift and not self.has_shift:
            self.shift, self.has_shift = self._vectors(0.0), True
            self._name_uniquely(self.shift, "shift")

    def _vectors(self, default: float) -> nn.CellList:
        return nn.CellList([SlotVectors(self.num_slots, self.outputs, default, self.output_dtype, self.spec.shard)])

    def _name_uniquely(self, cells: nn.CellList, kind: str) -> None:
        """As MindSpore wants the names of parameters, once the cells are an attribute."""
        cells.update_parameters_name(f"{next(iter(self.spec.parts))}.{kind}.")
