"""Which adapters are in memory: the slots of the network, and read adapters that wait for one."""

import time
from collections import defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Protocol

from mindgen.adapters.host_memory import HostMemory, ReadAdapter
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.pool_metrics import AdapterCounters, AdapterStatus, PoolMetrics
from mindgen.adapters.registry import AdapterVersion
from mindgen.adapters.slot_layout import SlotLayout, SlotMove, move_slots
from mindgen.errors import AdapterError, ConfigError


@dataclass(slots=True)
class _Slot:
    capacity: int
    rank: int = 0
    digest: str | None = None
    counters: AdapterCounters | None = None
    num_pins: int = 0
    last_used: int = 0


class SlotPlan(Protocol):
    """How many slots there are, and of what ranks.

    Attributes:
        max_rank: the highest that is served, if anything says so.
    """

    @property
    def max_rank(self) -> int | None: ...

    def first(self) -> SlotLayout: ...

    def larger(self, layout: SlotLayout, rank: int) -> SlotLayout:
        """With a slot for an adapter of that rank; the layout itself if there cannot be more slots of those ranks.

        Raises:
            ConfigError: no slot can be as large.
        """


class AdapterSlots(Protocol):
    """The slots of a network, as a Runner has them."""

    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None: ...
    def pack_adapter(self, adapter: AdapterWeights) -> Any: ...
    def write_adapter(self, slot: int, packed: Any) -> None: ...


class AdapterPool:
    """Brings adapters into slots as they are wanted, in place of those that nobody uses, least recently used first.

    A slot holds content, whatever its name: two names of the same content share it. Reading, checking and packing
    happen in a thread beside the steps; what happens between steps is a copy into the slot.

    For an adapter that no slot can have, or that has been added since and finds none free, slots are planned anew;
    adapters in use come along, and others are read again.

    Args:
        plan: of the slots, asked at the first use of an adapter.
        network: where they are.
        read: reads an adapter from disk, and checks that it fits.
        host_bytes: of read adapters to keep, beside the one that is just being read.
    """

    def __init__(
        self,
        plan: SlotPlan,
        network: AdapterSlots,
        read: Callable[[AdapterVersion], AdapterWeights],
        host_bytes: int,
    ) -> None:
        self._plan = plan
        self._network = network
        self._read = read
        self._host = HostMemory(self._read_and_pack, host_bytes)
        self._slots: list[_Slot] | None = None
        self._resident: dict[str, int] = {}
        self._clock = 0
        self.layout = SlotLayout(())
        self._moves: list[SlotMove] = []
        self._counters: defaultdict[AdapterVersion, AdapterCounters] = defaultdict(AdapterCounters)
        self._released = AdapterCounters()  # of versions that are gone
        self._read_seconds: dict[AdapterVersion, float] = {}  # of those read since they last came into a slot

    def pin(self, version: AdapterVersion) -> int | None:
        """The slot of an adapter, which stays its own until it is unpinned as often; None if it has to wait.

        Raises:
            MindgenError: it cannot be served.
        """
        counters = self._counters[version]
        place = self._resident.get(version.digest) if version.digest is not None else None
        if place is None:
            place = self._bring_in(version, counters)
            if place is None:
                return None
        assert self._slots is not None
        self._clock += 1
        slot = self._slots[place]
        slot.num_pins += 1
        slot.last_used = self._clock
        return place

    def prefetch(self, versions: list[AdapterVersion]) -> None:
        """Has adapters read that requests wait for, the most urgent first; those in slots count as used just now."""
        if self._slots is None:
            return
        self._clock += 1
        absent = []
        for version in versions:
            place = self._resident.get(version.digest) if version.digest is not None else None
            if place is None:
                absent.append(version)
            else:
                self._slots[place].last_used = self._clock
        self._host.want(absent)

    def take_moves(self) -> list[SlotMove]:
        """Where pinned adapters have come to since this was asked last."""
        moves, self._moves = self._moves, []
        return moves

    def wait(self, seconds: float) -> None:
        """Until an adapter that was not there has been read, but no longer than that."""
        self._host.wait(seconds)

    def unpin(self, place: int) -> None:
        assert self._slots is not None and self._slots[place].num_pins > 0, "an adapter is given back twice"
        self._slots[place].num_pins -= 1

    def read_anew(self) -> None:
        """Has every adapter read again, as they may depend on the base model, which has changed; none is pinned."""
        self.layout = replace(self.layout)  # what is being read at this time fits no longer
        self._host.forget_all()
        for slot in self._slots or []:
            assert slot.num_pins == 0, "an adapter is in use"
            slot.digest = None
        self._resident = {}

    def release(self, version: AdapterVersion, kept: Collection[str | None]) -> bool:
        """Gives back the memory of a version that nobody will ask for again.

        Args:
            kept: digests that are other versions' as well, whose slots stay.

        Returns:
            False while it may just be read.
        """
        if self._host.is_reading:
            return False
        self._host.forget(version)
        self._read_seconds.pop(version, None)
        counters = self._counters.pop(version, AdapterCounters())
        self._released.add(counters)
        for slot in self._slots or []:
            if slot.counters is counters:  # it stays, for another version of the same content
                slot.counters = self._released
        place = self._resident.get(version.digest or "")
        if place is not None and self._slots is not None and version.digest not in kept:
            if self._slots[place].num_pins > 0:  # another version of the same content, which is on its way out too
                return False
            self._slots[place] = _Slot(self._slots[place].capacity)
            del self._resident[version.digest or ""]
        return True

    def count(self, version: AdapterVersion, requests: int = 0, tokens: int = 0) -> None:
        counters = self._counters[version]
        counters.requests += requests
        counters.tokens += tokens

    def status(self, version: AdapterVersion) -> AdapterStatus:
        counters = self._counters.get(version, AdapterCounters())
        return AdapterStatus(
            version.adapter_id, version.folder, version.version, version.digest, version.digest in self._resident,
            counters.requests, counters.tokens, counters.loads, counters.evictions, counters.load_seconds,
        )  # fmt: skip

    def metrics(self) -> PoolMetrics:
        every = [self._released, *self._counters.values()]
        return PoolMetrics(
            self.layout.num_slots,
            len(self._resident),
            self._host.num_bytes,
            sum(each.requests for each in every),
            sum(each.tokens for each in every),
            sum(each.loads for each in every),
            sum(each.evictions for each in every),
            sum(each.load_seconds for each in every),
        )

    def check_integrity(self, pins: list[int]) -> None:
        """Raises AssertionError unless the slots are pinned exactly by these, and hold what they are said to."""
        slots = self._slots or []
        assert [slot.num_pins for slot in slots] == [pins.count(place) for place in range(len(slots))], "wrong pins"
        held = {slot.digest: place for place, slot in enumerate(slots) if slot.digest is not None}
        assert held == self._resident, "a slot holds another adapter than it is said to"

    def _bring_in(self, version: AdapterVersion, counters: AdapterCounters) -> int | None:
        if self._slots is None:
            self._use(self._plan.first(), [])
        read = self._host.get(version)
        if read is None:
            return None
        self._check(version, read)
        place = self._resident.get(read.digest)  # under another name
        if place is None:
            place = self._free_slot(read.rank)
            if place is None:
                self._grow(version, read.rank)
            if read.layout is not self.layout:
                self._host.forget(version)  # it was packed for other slots: it is read again
                self._host.get(version)
                return None
            if place is None:
                return None
            self._fill(place, read, counters)
            counters.load_seconds += self._read_seconds.pop(version, 0.0)
        self._host.release(version)
        return place

    def _check(self, version: AdapterVersion, read: ReadAdapter) -> None:
        if version.digest is None:
            version.digest = read.digest
        if version.digest != read.digest:
            self._host.forget(version)
            raise AdapterError(f"adapter {version.adapter_id} has changed on disk since it was added: add it again")
        if self._plan.max_rank is not None and read.rank > self._plan.max_rank:
            raise AdapterError(
                f"adapter {version.adapter_id} has rank {read.rank}, above max_lora_rank ({self._plan.max_rank}) "
                "in the engine's configuration: raise it"
            )

    def _grow(self, version: AdapterVersion, rank: int) -> None:
        """Makes room for an adapter of that rank beside those in use, if that is possible now.

        Raises:
            AdapterError: it never is.
        """
        assert self._slots is not None
        try:
            layout = self._plan.larger(self.layout, rank)
        except ConfigError as error:
            raise AdapterError(f"adapter {version.adapter_id} has rank {rank}: {error}") from error
        held = [(place, slot.rank) for place, slot in enumerate(self._slots) if slot.num_pins]
        moves = None if layout == self.layout else move_slots(self.layout, layout, held, rank)
        if moves is not None:
            self._use(layout, moves)

    def _use(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        """Slots of this layout from now on."""
        self._network.enable_lora(layout, moves)
        before, self._slots = self._slots or [], [_Slot(capacity) for capacity in layout.capacities]
        self._resident = {}
        for source, target, _ in moves:
            self._slots[target] = replace(before[source], capacity=layout.capacities[target])
            self._resident[before[source].digest or ""] = target
        moved = {move.source for move in moves}
        for place, slot in enumerate(before):
            if place not in moved and slot.counters is not None:
                slot.counters.evictions += 1
        self.layout, self._moves = layout, moves

    def _free_slot(self, rank: int) -> int | None:
        """The smallest slot that is free, else of those that nobody uses the one that was used longest ago."""
        assert self._slots is not None
        usable = [
            (slot.digest is not None, slot.last_used if slot.digest else 0, slot.capacity, place)
            for place, slot in enumerate(self._slots)
            if slot.num_pins == 0 and slot.capacity >= rank
        ]
        return min(usable)[-1] if usable else None

    def _fill(self, place: int, read: ReadAdapter, counters: AdapterCounters) -> None:
        assert self._slots is not None
        slot = self._slots[place]
        if slot.digest is not None:
            del self._resident[slot.digest]
            if slot.counters is not None:
                slot.counters.evictions += 1
        slot.digest = None  # should writing fail, the slot holds nothing
        started = time.perf_counter()
        self._network.write_adapter(place, read.packed)
        slot.digest, slot.counters, slot.rank = read.digest, counters, read.rank
        self._resident[read.digest] = place
        counters.loads += 1
        counters.load_seconds += time.perf_counter() - started

    def _read_and_pack(self, version: AdapterVersion) -> ReadAdapter:
        started, layout = time.perf_counter(), self.layout
        adapter = self._read(version)
        packed = self._network.pack_adapter(adapter) if adapter.max_rank() <= layout.max_rank else None
        num_bytes = 0 if packed is None else packed.num_bytes
        self._read_seconds[version] = time.perf_counter() - started
        return ReadAdapter(adapter.digest, adapter.max_rank(), packed, num_bytes, layout)
