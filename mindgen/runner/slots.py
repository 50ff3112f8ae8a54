"""Adapters in the slots of a network: packed for them, and copied into them."""

import threading
import weakref
from collections import deque
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from mindgen.adapters.formats.peft import LoraPair
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.slot_layout import SlotLevel, SlotMove
from mindgen.kernels.arena import Arena
from mindgen.kernels.library import KernelLibrary
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.adapted import AdaptedLayer, OutputVectors
from mindgen.layers.device_rows import DeviceRows
from mindgen.layers.packed_form import PackedForm, SlotCopies, form_key, in_rows

_PIECE_BYTES = 64 << 20  # of memory for slots
_MAX_KNOWN_FORMS = 64


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class PackedSlot:
    """An adapter as slots have it.

    Attributes:
        memory: LoRA of all layers.
        vectors: of each layer.
        is_plain: whether it is LoRA on linears only.
    """

    form: PackedForm
    memory: np.ndarray
    vectors: list[OutputVectors]
    is_plain: bool

    @property
    def num_bytes(self) -> int:
        vectors = [vector for layer in self.vectors for vector in layer if vector is not None]
        return self.memory.nbytes + sum(vector.nbytes for vector in vectors)


class NetworkSlots:
    """The slots of all layers.

    Args:
        linears, tables: the layers; adapters of linears alone are plain.
        dtype: of the network.
    """

    def __init__(
        self, linears: list[AdaptedLayer], tables: list[AdaptedLayer], dtype: str, kernels: KernelLibrary
    ) -> None:
        self._layers = [*linears, *tables]
        self._table_names = {name for table in tables for name in table.spec.parts}
        self._dtype = dtype
        self._kernels = kernels
        self._beyond_plain: set[int] = set()
        self._changing = threading.Lock()  # of the slots' sizes, while nothing is packed for them
        self._forms: dict[Hashable, PackedForm] = {}
        self._spares: deque[tuple[PackedForm, np.ndarray]] = deque(maxlen=1)
        self.modules = {
            name: (spec.inputs.size, axis.size)
            for spec in (layer.spec for layer in self._layers)
            for name, axis in spec.parts.items()
        }

    def enable(self, levels: list[SlotLevel], moves: Sequence[SlotMove] = ()) -> None:
        """Makes room for adapters, in place of what room there was.

        Args:
            moves: the adapters that come along; what has been packed fits no longer.
        """
        arena = Arena(_PIECE_BYTES)
        with self._changing:
            for layer in self._layers:
                layer.enable_lora(levels, arena, moves)
            self._beyond_plain = {target for source, target, _ in moves if source in self._beyond_plain}
            self._forms.clear()
            self._spares.clear()

    def are_plain(self, slots: list[int]) -> bool:
        return self._beyond_plain.isdisjoint(slots)

    def pack(self, adapter: AdapterWeights) -> PackedSlot:
        """May be called from any thread."""
        with self._changing:
            return self._pack(adapter)

    def _pack(self, adapter: AdapterWeights) -> PackedSlot:
        pairs = {name: in_rows(pair) for layer in self._layers for name, pair in layer.own_pairs(adapter).items()}
        form = self._form(form_key(pairs), pairs)
        memory = self._spare(form)
        if memory is None:
            memory = form.memory()
        form.fill(memory, pairs, self._kernels)
        vectors = [layer.own_vectors(adapter.outputs) for layer in self._layers] if adapter.outputs else []
        is_plain = not adapter.outputs and self._table_names.isdisjoint(adapter.pairs)
        packed = PackedSlot(form, memory, vectors, is_plain)
        weakref.finalize(packed, self._spares.append, (form, memory)).atexit = False
        return packed

    def write(self, slot: int, adapter: PackedSlot) -> bool:
        """Puts an adapter into a slot; whether graphs with scales or shifts are too old now."""
        vectors = adapter.vectors or [OutputVectors()] * len(self._layers)
        is_new = [layer.write_vectors(slot, each) for layer, each in zip(self._layers, vectors, strict=True)]
        for layer, blocks in zip(self._layers, adapter.form.blocks, strict=True):
            layer.has_lora = layer.has_lora or any(blocks)
        self._write_lora(slot, adapter)
        if adapter.is_plain:
            self._beyond_plain.discard(slot)
        else:
            self._beyond_plain.add(slot)
        return any(is_new)

    def _spare(self, form: PackedForm) -> np.ndarray | None:
        """Memory of an adapter of the same form that nobody has any more: fresh memory takes as long as filling it."""
        with suppress(IndexError):
            last, memory = self._spares.pop()
            return memory if last is form else None
        return None

    def _form(self, key: Hashable, pairs: dict[str, LoraPair]) -> PackedForm:
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) == _MAX_KNOWN_FORMS:
                self._forms.clear()
            form = PackedForm(pairs, self._dtype)
            form.blocks += [layer.plan(pairs, form) for layer in self._layers]
            self._forms[key] = form
        return form

    def _write_lora(self, slot: int, adapter: PackedSlot) -> None:
        form = adapter.form
        key = slot, sum(layer.has_lora for layer in self._layers)
        if key not in form.copies:
            rows = [(place, _host_row(memory, slot)) for place, memory in self._parts(slot, form)]
            form.copies[key] = SlotCopies(rows)
        form.copies[key].run(adapter.memory, self._kernels)

    def _parts(self, slot: int, form: PackedForm) -> list[tuple[int | None, RowMemory]]:
        layers = zip(self._layers, form.blocks, strict=True)
        return [part for layer, blocks in layers for part in layer.slot_parts(slot, blocks)]


class DeviceSlots(NetworkSlots):
    """The same in a device's memory, into which the host writes part after part."""

    def _write_lora(self, slot: int, adapter: PackedSlot) -> None:
        for place, memory in self._parts(slot, adapter.form):
            assert isinstance(memory, DeviceRows)
            if place is None:
                memory[slot] = 0
            else:
                memory.put(slot, adapter.memory[place:])


def _host_row(memory: RowMemory, row: int) -> np.ndarray:
    assert isinstance(memory, np.ndarray)
    return memory[row]
