"""Slots and who may have them: device-free, with adapters that are read from nowhere."""

import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.adapters.formats.peft import LoraPair
from mindgen.adapters.loader import AdapterWeights
from mindgen.adapters.pool import AdapterPool
from mindgen.adapters.registry import AdapterRegistry
from mindgen.adapters.slot_layout import SlotLayout, SlotMove, move_slots, plan_slots
from mindgen.errors import AdapterError, ConfigError


class Plan:
    """Slots as a test says, and others once it says so."""

    def __init__(self, layout: SlotLayout) -> None:
        self.layout = layout
        self.max_rank: int | None = None

    def first(self) -> SlotLayout:
        return self.layout

    def larger(self, layout: SlotLayout, rank: int) -> SlotLayout:
        if rank > self.layout.max_rank:
            raise ConfigError("there is no memory for it")
        return self.layout


class Packed(NamedTuple):
    digest: str
    num_bytes: int


class Slots:
    """What a network would hold: of each slot the digest that was written last."""

    def __init__(self, capacities: tuple[int, ...], ranks: dict[str, int], host_bytes: int = 10**6) -> None:
        self.ranks = ranks
        self.contents: list[str | None] = [None] * len(capacities)
        self.reads: list[str] = []
        self.may_read = threading.Event()
        self.may_read.set()
        self.registry = AdapterRegistry({name: Path(name) for name in ranks})
        self.plan = Plan(SlotLayout(capacities))
        self.pool = AdapterPool(self.plan, self, self._read, host_bytes)

    def enable_lora(self, layout: SlotLayout, moves: list[SlotMove]) -> None:
        before, self.contents = self.contents, [None] * layout.num_slots
        for source, target, _ in moves:
            self.contents[target] = before[source]

    def _read(self, version) -> AdapterWeights:
        name = version.folder.name
        self.reads.append(name)
        assert self.may_read.wait(10)
        if name.startswith("broken"):
            raise AdapterError(f"{name} is broken")
        rank = self.ranks[name]
        pair = LoraPair(np.zeros((rank, 1), np.float32), np.zeros((1, rank), np.float32), 1.0, "float32")
        return AdapterWeights(version.adapter_id, version.folder, f"digest of {name}", {"linear": pair})

    @staticmethod
    def pack_adapter(adapter: AdapterWeights) -> Packed:
        return Packed(adapter.digest, 100)

    def write_adapter(self, slot: int, packed: Packed) -> None:
        self.contents[slot] = packed.digest

    def prefetch(self, names: str) -> None:
        self.pool.prefetch([self.registry.get(name) for name in names])

    def settle(self, names: str) -> None:
        """Waits until exactly these reads have begun."""
        for _ in range(1000):
            if len(self.reads) >= len(names):
                break
            time.sleep(0.001)
        time.sleep(0.01)
        assert "".join(self.reads) == names

    def pin(self, name: str) -> int | None:
        """Waits for the reading, but not for a slot."""
        version = self.registry.get(name)
        slot = self.pool.pin(version)
        if slot is None:
            self.pool.wait(10)
            slot = self.pool.pin(version)
        return slot


def test_an_adapter_waits_while_it_is_read_and_while_all_slots_are_in_use():
    slots = Slots((8,), {"a": 4, "b": 4})
    slots.may_read.clear()
    assert slots.pool.pin(slots.registry.get("a")) is None
    slots.may_read.set()
    assert slots.pin("a") == 0
    assert slots.pin("b") is None
    slots.pool.unpin(0)
    assert slots.pin("b") == 0 and slots.contents == ["digest of b"]
    assert slots.pool.status(slots.registry.get("a")).evictions == 1


def test_the_least_recently_used_makes_way():
    slots = Slots((8, 8), {"a": 8, "b": 8, "c": 8})
    for name in ("a", "b", "a"):
        slots.pool.unpin(slots.pin(name))
    slots.pin("c")
    assert slots.contents == ["digest of a", "digest of c"]


def test_large_slots_are_left_to_large_adapters():
    slots = Slots((64, 16, 8), {"small": 3, "middle": 9, "large": 40, "huge": 65})
    assert [slots.pin(name) for name in ("small", "middle", "large")] == [2, 1, 0]
    with pytest.raises(AdapterError, match="adapter huge has rank 65: there is no memory for it"):
        slots.pin("huge")
    slots.plan.max_rank = 64
    with pytest.raises(AdapterError, match=r"adapter huge has rank 65, above max_lora_rank \(64\)"):
        slots.pin("huge")


def test_a_small_adapter_takes_a_large_slot_rather_than_wait():
    slots = Slots((64, 8), {"a": 8, "b": 8})
    assert [slots.pin("a"), slots.pin("b")] == [1, 0]


def test_two_names_of_one_content_share_a_slot():
    slots = Slots((8, 8), {"a": 8})
    slots.registry.add("other", Path("a"))
    assert slots.pin("a") == slots.pin("other") == 0
    slots.pool.check_integrity([0, 0])


def test_a_new_version_is_for_those_who_come_later():
    slots = Slots((8, 8), {"a": 8, "b": 8})
    old = slots.registry.get("a")
    first = slots.pin("a")
    new = slots.registry.add("a", Path("b"))
    assert slots.pin("a") != first and slots.registry.get("a") is new
    assert slots.pool.pin(old) == first, "who came before keeps the old one"


def test_content_that_changes_on_disk_is_refused():
    slots = Slots((8,), {"a": 8, "b": 8}, host_bytes=0)
    version = slots.registry.get("a")
    slots.pool.unpin(slots.pin("a"))
    slots.pool.unpin(slots.pin("b"))  # "a" has to be read again
    version.folder = Path("b")
    with pytest.raises(AdapterError, match="changed on disk"):
        slots.pin("a")


def test_what_cannot_be_read_is_tried_again_when_it_is_asked_for_again():
    slots = Slots((8,), {"broken": 8, "a": 8})
    for _ in range(2):
        with pytest.raises(AdapterError, match="broken is broken"):
            slots.pin("broken")
    assert len(slots.reads) == 2 and slots.pin("a") == 0


def test_host_memory_keeps_what_fits():
    slots = Slots((8,), {name: 8 for name in "abc"}, host_bytes=200)
    for name in "abcbc":
        slots.pool.unpin(slots.pin(name))
    assert len(slots.reads) == 3
    slots.pool.unpin(slots.pin("a"))
    assert len(slots.reads) == 4


def test_adapters_are_read_before_a_slot_is_free_for_them():
    slots = Slots((8,), {name: 8 for name in "abc"})
    place = slots.pin("a")
    slots.prefetch("bc")
    slots.settle("abc")
    slots.pool.unpin(place)
    assert slots.pool.pin(slots.registry.get("b")) == 0, "without a wait"


def test_the_most_urgent_is_read_first_and_who_is_gone_is_not():
    slots = Slots((8,), {name: 8 for name in "abcde"})
    slots.pin("a")
    slots.may_read.clear()
    slots.prefetch("bcd")
    slots.settle("ab")
    slots.prefetch("ec")
    slots.may_read.set()
    slots.settle("abec")


def test_reading_ahead_stops_at_the_budget_and_goes_on_when_there_is_room():
    slots = Slots((8,), {name: 8 for name in "abcdef"}, host_bytes=200)
    place = slots.pin("a")
    slots.prefetch("bcdef")
    slots.settle("abc")
    assert slots.pool.metrics().host_bytes == 200
    slots.pool.unpin(place)
    slots.pin("b")
    slots.prefetch("cdef")
    slots.settle("abcd")


def test_the_most_urgent_is_read_without_any_budget():
    slots = Slots((8,), {name: 8 for name in "abc"}, host_bytes=0)
    slots.pin("a")
    slots.prefetch("bc")
    slots.settle("ab")
    slots.prefetch("")
    assert slots.pool.metrics().host_bytes == 0


def test_what_waiting_requests_want_is_not_what_makes_way():
    slots = Slots((8, 8), {name: 8 for name in "abc"})
    for name in "ab":
        slots.pool.unpin(slots.pin(name))
    slots.prefetch("a")
    slots.pin("c")
    assert slots.contents == ["digest of a", "digest of c"]


@settings(max_examples=60, deadline=None)
@given(
    capacities=st.lists(st.sampled_from([8, 16, 32]), min_size=1, max_size=4),
    ranks=st.lists(st.integers(1, 32), min_size=1, max_size=8),
    asked=st.lists(st.tuples(st.integers(0, 7), st.booleans()), max_size=40),
)
def test_a_pinned_adapter_is_always_the_one_that_was_asked_for(capacities, ranks, asked):
    capacities = tuple(sorted(capacities, reverse=True))
    slots = Slots(capacities, {f"a{i}": rank for i, rank in enumerate(ranks) if rank <= capacities[0]} or {"a0": 1})
    pins: list[tuple[str, int]] = []
    for number, release in asked:
        if release and pins:
            slots.pool.unpin(pins.pop(number % len(pins))[1])
        name = list(slots.ranks)[number % len(slots.ranks)]
        slot = slots.pin(name)
        if slot is not None:
            assert capacities[slot] >= slots.ranks[name]
            pins.append((name, slot))
        assert all(slots.contents[place] == f"digest of {held}" for held, place in pins)
        slots.pool.check_integrity([place for _, place in pins])


def test_slots_grow_and_adapters_in_use_come_along():
    slots = Slots((8, 8), {"a": 4, "b": 8, "large": 9})
    a, b = slots.pin("a"), slots.pin("b")
    slots.pool.unpin(b)
    slots.plan.layout = SlotLayout((16, 8, 8))
    assert slots.pin("large") is None, "it has to be packed for the other slots"
    (move,) = slots.pool.take_moves()
    assert (move.source, move.rank, slots.pool.take_moves()) == (a, 4, [])
    assert slots.contents[move.target] == "digest of a" and slots.pool.pin(slots.registry.get("a")) == move.target
    large = slots.pin("large")
    assert large == 0 and slots.contents[0] == "digest of large"
    assert slots.pin("b") not in (large, move.target) and "".join(slots.reads) == "ablargelargeb"
    assert [slots.pool.status(slots.registry.get(name)).evictions for name in ("a", "b", "large")] == [0, 1, 0]
    slots.pool.check_integrity([move.target, move.target, large, slots.pool.pin(slots.registry.get("b")), 1])


def test_adapters_in_use_keep_their_levels_and_find_a_slot_or_all_wait():
    old = SlotLayout((8, 8))
    assert move_slots(old, SlotLayout((16, 8)), [(0, 4)], 9) == [(0, 1, 4)]
    assert move_slots(old, SlotLayout((16, 8)), [(0, 4), (1, 8)], 9) is None, "three adapters, two slots"
    assert move_slots(old, SlotLayout((16, 16, 16)), [(0, 4)], 9) is None, "their ranks would be added up otherwise"
    assert move_slots(SlotLayout((16,)), SlotLayout((16, 8)), [(0, 9)], 4) is None
    assert move_slots(SlotLayout((16, 8)), SlotLayout((64, 16, 8, 8)), [(0, 3), (1, 8)], 40) in (
        [(1, 3, 8), (0, 2, 3)],
        [(0, 2, 3), (1, 3, 8)],
    )
    assert move_slots(SlotLayout((16, 8)), SlotLayout((64, 16, 8)), [(0, 9), (1, 8)], 40) == [(0, 1, 9), (1, 2, 8)]


def test_slots_follow_the_ranks_within_the_limits():
    assert plan_slots([4, 8, 16, 64, 9], 10, 64, 1000, 0).capacities == (64, 16, 16, 8, 8)
    assert plan_slots([4] * 90 + [64] * 10, 10, 64, 1000, 0).capacities == (64, *[8] * 9)
    assert plan_slots([4] * 90 + [64] * 10, 10, 16, 1000, 0).capacities == (8,) * 10
    assert plan_slots([64, 8, 8, 8], 4, 64, 80, 0).capacities == (64, 8, 8)
    assert plan_slots([], 4, 64, 80, 0).capacities == ()
    assert plan_slots([128, 4], 4, None, 200, 0).capacities == (128, 8)
    assert plan_slots([128, 4, 9], 4, None, 63, 9).capacities == (16, 8)
    assert plan_slots([10**12], 4, None, 63, 0).capacities == ()
    with pytest.raises(ConfigError, match="adapter_memory holds 63 ranks"):
        plan_slots([64], 4, 64, 63, 64)


def test_levels_cover_every_rank_once():
    layout = SlotLayout((64, 16, 16, 8))
    assert [tuple(level) for level in layout.levels()] == [(4, 0, 8), (3, 8, 8), (1, 16, 48)]
    assert layout.num_ranks() == sum(level.num_slots * level.rank for level in layout.levels())


def test_a_version_that_is_released_leaves_nothing_behind():
    slots = Slots((8, 8), {"A": 8, "B": 8})
    versions = {name: slots.registry.get(name) for name in "AB"}
    place = slots.pin("A")
    slots.pin("B")
    slots.pool.wait(1)
    slots.pool.count(versions["A"], requests=2, tokens=5)
    before = slots.pool.metrics()
    assert not slots.pool.release(versions["A"], ())  # it is in use
    slots.pool.unpin(place)
    assert slots.pool.release(versions["A"], {versions["A"].digest})
    assert slots.pool.status(versions["A"]).is_resident  # another version has the same content
    assert slots.pool.release(versions["A"], ()) and not slots.pool.status(versions["A"]).is_resident
    after = slots.pool.metrics()
    assert (after.slots_in_use, after.requests, after.tokens) == (1, before.requests, before.tokens)
    assert after.host_bytes < before.host_bytes
    slots.pool.check_integrity([slots.pin("B")] * 2)
