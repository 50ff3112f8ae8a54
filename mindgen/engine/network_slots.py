"""The adapter slots of a network, whatever runs it."""

from dataclasses import dataclass

from mindspore import nn

from mindgen.adapters.loader import AdapterWeights
from mindgen.engine.adapter_rows import AdapterInputs
from mindgen.engine.batch import Batch
from mindgen.layers.adapted import AdaptedLayer, AdaptedOutputs
from mindgen.slot_layout import SlotLevel


@dataclass(frozen=True, slots=True)
class PackedAdapter:
    """An adapter in the form of a slot: what it has for each layer; whether that is LoRA on linears only."""

    layers: list[AdaptedOutputs]
    is_plain: bool


class NetworkSlots:
    """Puts adapters into a network's layers.

    Args:
        network: a CausalLm.
    """

    def __init__(self, network: nn.Cell) -> None:
        self._network = network
        self._beyond_plain: set[int] = set()

    def layers(self) -> list[AdaptedLayer]:
        """Everything that adapters can target."""
        return [*self._network.linears(), *self._network.tables()]

    def modules(self) -> dict[str, tuple[int, int]]:
        """(in, out) sizes of everything that adapters can target, by Hugging Face module name."""
        return {name: (layer.inputs.size, axis.size) for layer in self.layers() for name, axis in layer.parts.items()}

    def enable(self, levels: list[SlotLevel]) -> None:
        """Makes room for adapters, in place of what room there was; graphs with adapters are too old now."""
        for layer in self.layers():
            layer.enable_lora(levels)
        self._beyond_plain.clear()

    def pack(self, adapter: AdapterWeights) -> tuple[PackedAdapter, int]:
        """The adapter in the form of a slot, and the bytes that this takes; may be called from any thread."""
        layers = [layer.pack_adapter(adapter.pairs, adapter.outputs) for layer in self.layers()]
        tables = {name for table in self._network.tables() for name in table.parts}
        is_plain = not adapter.outputs and tables.isdisjoint(adapter.pairs)
        return PackedAdapter(layers, is_plain), sum(layer.num_bytes for layer in layers)

    def write(self, slot: int, packed: PackedAdapter) -> bool:
        """Puts the adapter into the slot; whether graphs that are told the slots of rows are too old now."""
        layers = zip(self.layers(), packed.layers, strict=True)
        is_changed = any([layer.write_adapter(slot, outputs) for layer, outputs in layers])
        if packed.is_plain:
            self._beyond_plain.discard(slot)
        else:
            self._beyond_plain.add(slot)
        return is_changed

    def inputs(self, batch: Batch) -> AdapterInputs:
        """Only batches that need more than LoRA on linears pay for it."""
        num_levels = len(batch.segment_ends)
        if self._beyond_plain.isdisjoint(batch.slots):
            return AdapterInputs(num_levels)
        table_levels, head_levels = (num_levels if table.has_lora else 0 for table in self._network.tables())
        return AdapterInputs(num_levels, True, table_levels, head_levels)
