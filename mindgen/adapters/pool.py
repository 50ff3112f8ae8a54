"""Which adapters are in memory, and in which slot of the stacked LoRA weights."""

from collections.abc import Callable

from mindgen.adapters.loader import AdapterWeights
from mindgen.errors import AdapterError

BASE_SLOT = 0


class AdapterPool:
    """Gives every adapter in use a slot of its own; slot 0 is the base model's.

    Args:
        num_slots: all slots, the base model's included.
        load: reads an adapter from disk by its name.
        write: puts an adapter's weights into a slot of the network.
    """

    def __init__(
        self,
        num_slots: int,
        load: Callable[[str], AdapterWeights],
        write: Callable[[int, AdapterWeights], None],
    ) -> None:
        self.num_slots = num_slots
        self._load = load
        self._write = write
        self._slots: dict[str, int] = {}
        self._digests: dict[str, str] = {}

    def slot(self, adapter_id: str | None) -> int:
        """The adapter's slot, loading it at its first use; None is the base model.

        Raises:
            AdapterError: the adapter cannot be served, or there is no slot left.
        """
        if adapter_id is None:
            return BASE_SLOT
        if adapter_id not in self._slots:
            slot = len(self._slots) + 1
            if slot >= self.num_slots:
                raise AdapterError(f"adapter {adapter_id} finds all {self.num_slots - 1} adapter slots taken")
            adapter = self._load(adapter_id)
            self._write(slot, adapter)
            self._slots[adapter_id] = slot
            self._digests[adapter_id] = adapter.digest
        return self._slots[adapter_id]

    def digest(self, adapter_id: str | None) -> str | None:
        """The digest of an adapter that has a slot; None for the base model."""
        return None if adapter_id is None else self._digests[adapter_id]

    def check_integrity(self) -> None:
        """Raises AssertionError unless slots are unique, in range and all have a digest."""
        slots = sorted(self._slots.values())
        assert slots == list(range(1, len(slots) + 1)), f"slots {slots} are not 1..{len(slots)}"
        assert len(slots) < self.num_slots, f"{len(slots)} adapters in {self.num_slots} slots"
        assert self._slots.keys() == self._digests.keys()
