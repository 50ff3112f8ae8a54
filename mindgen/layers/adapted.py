"""What linears, embedding and head have in common: adapters change their outputs, row by row."""

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.checkpoint.peft import LoraPair, OutputChange
from mindgen.layers.lora import LoraBlock, LoraLevel
from mindgen.layers.parameters import MINDSPORE_DTYPES
from mindgen.layers.slot_vectors import SlotVectors
from mindgen.slot_layout import SlotLevel

# Which rows are whose, a plain tuple for MindSpore's compiler:
#   segment_ends  of each level, as in LoraLevel; none for a batch without adapters
#   slots         (T,) of each row, E for the base model's; None unless an adapter of the batch has more than LoRA
AdapterRows: TypeAlias = tuple[tuple[Tensor, ...], Tensor | None]


@dataclass(frozen=True, slots=True)
class AdaptedOutputs:
    """An adapter's weights for one layer, as a slot has them; scale and shift (out,) as in OutputChange."""

    blocks: list[LoraBlock | None]
    scale: np.ndarray | None
    shift: np.ndarray | None

    @property
    def num_bytes(self) -> int:
        arrays = [array for array in (*self.blocks, self.scale, self.shift) if array is not None]
        return sum(array.num_bytes if isinstance(array, LoraBlock) else array.nbytes for array in arrays)


class AdaptedLayer(nn.Cell):
    """y (T, out) = (f(x) + the LoRA of each row's adapter) * its scale + its shift.

    Attributes:
        parts: the Hugging Face module names whose outputs lie side by side in y, with their sizes.
        has_lora: whether an adapter has brought LoRA for this layer yet.
    """

    level_type: ClassVar[type[LoraLevel]] = LoraLevel

    def __init__(self, in_features: int, parts: dict[str, int], dtype: str, output_dtype: str) -> None:
        super().__init__()
        self.in_features = in_features
        self.parts = parts
        self.dtype = dtype
        self.output_dtype = output_dtype
        self.casts = output_dtype != dtype
        self.mindspore_dtype = MINDSPORE_DTYPES[output_dtype]
        self.lora = nn.CellList([])
        self.has_lora = False
        # One each, once an adapter has them.
        self.scale, self.shift = nn.CellList([]), nn.CellList([])
        self.has_scale = self.has_shift = False
        self.num_slots = 0
        self.cast = ops.Cast()
        self.add = ops.Add()
        self.mul = ops.Mul()

    def enable_lora(self, levels: list[SlotLevel]) -> None:
        """Makes room for adapters, in place of what room there was; to be called before the network is compiled."""
        sizes = tuple(self.parts.values())
        self.lora = nn.CellList([self.level_type(self.in_features, sizes, level, self.dtype) for level in levels])
        self._name_uniquely(self.lora, "lora")
        self.num_slots = max((level.num_slots for level in levels), default=0)
        self.scale, self.shift = nn.CellList([]), nn.CellList([])
        self.has_lora = self.has_scale = self.has_shift = False

    def pack_adapter(self, pairs: dict[str, LoraPair], outputs: dict[str, OutputChange]) -> AdaptedOutputs:
        """What an adapter has for this layer, by module name, in the form of a slot: a block for each level."""
        changes = [outputs.get(name) for name in self.parts]
        return AdaptedOutputs(
            [level.pack([pairs.get(name) for name in self.parts]) for level in self.lora],
            self._side_by_side([None if change is None else change.scale for change in changes], 1.0),
            self._side_by_side([None if change is None else change.shift for change in changes], 0.0),
        )

    def write_adapter(self, slot: int, outputs: AdaptedOutputs) -> bool:
        """Puts what an adapter has for this layer into a slot; whether graphs with scales or shifts are too old now."""
        had = (self.has_scale, self.has_shift)
        self.has_lora = self.has_lora or any(block is not None for block in outputs.blocks)
        if outputs.scale is not None and not self.has_scale:
            self.scale, self.has_scale = self._vectors(1.0), True
            self._name_uniquely(self.scale, "scale")
        if outputs.shift is not None and not self.has_shift:
            self.shift, self.has_shift = self._vectors(0.0), True
            self._name_uniquely(self.shift, "shift")
        for vectors, values in ((self.scale, outputs.scale), (self.shift, outputs.shift)):
            for each in vectors:
                each.write_slot(slot, values)
        if self.has_lora:
            self._write_blocks(slot, outputs.blocks)
        return had != (self.has_scale, self.has_shift)

    def _write_blocks(self, slot: int, blocks: list[LoraBlock | None]) -> None:
        for level, block in zip(self.lora, blocks, strict=True):
            if slot < level.num_slots:
                level.write_slot(slot, block)
            else:
                assert block is None, "the adapter's rank is above the slot's"

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
        sizes = self.parts.values()
        filled = [
            np.full(size, default, np.float32) if part is None else part
            for part, size in zip(values, sizes, strict=True)
        ]
        return np.concatenate(filled)

    def _vectors(self, default: float) -> nn.CellList:
        return nn.CellList([SlotVectors(self.num_slots, sum(self.parts.values()), default, self.output_dtype)])

    def _name_uniquely(self, cells: nn.CellList, kind: str) -> None:
        """As MindSpore wants the names of parameters, once the cells are an attribute."""
        cells.update_parameters_name(f"{next(iter(self.parts))}.{kind}.")
