"""How many adapters fit into memory at once, and of what rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from mindgen.errors import ConfigError

_SMALLEST = 8


class SlotLevel(NamedTuple):
    """The ranks from first_rank on, `rank` of them, of the first num_slots slots."""

    num_slots: int
    first_rank: int
    rank: int


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """Slots for adapters, the largest first; a slot holds any adapter up to its capacity.

    Ranks come in levels, 1..8, 9..16, 17..32 and so on. A level has its own stacked weights for the slots that reach
    it, and as the largest come first these are the first ones: so the rows that a level concerns are the first of a
    batch that is sorted by slot, and a small adapter costs neither the memory nor the time of a large one.

    Attributes:
        capacities: the highest rank that each slot holds, falling; each is the end of a level.
    """

    capacities: tuple[int, ...]

    @property
    def num_slots(self) -> int:
        return len(self.capacities)

    @property
    def max_rank(self) -> int:
        return self.capacities[0] if self.capacities else 0

    def levels(self) -> list[SlotLevel]:
        return list(_levels(self.capacities))

    def num_ranks(self) -> int:
        """Of all slots together: what their memory is proportional to."""
        return sum(self.capacities)


class SlotMove(NamedTuple):
    """An adapter of so many ranks that goes from a slot of one layout to a slot of another."""

    source: int
    target: int
    rank: int


def move_slots(old: SlotLayout, new: SlotLayout, held: Sequence[tuple[int, int]], wanted: int) -> list[SlotMove] | None:
    """Where adapters that are in use go when the slots change.

    An adapter keeps its levels, for its weights are copied level by level.

    Args:
        held: of each adapter in use its slot and its rank.
        wanted: the rank of one more, for which a slot must be left.

    Returns:
        None if there is no such way.
    """
    if any(_levels_of(old, rank) != _levels_of(new, rank) for _, rank in held):
        return None
    free = list(range(new.num_slots))  # the largest first
    moves = []
    for slot, rank in sorted([*held, (-1, wanted)], key=lambda each: -each[1]):
        usable = [place for place in free if new.capacities[place] >= rank]
        if not usable:
            return None
        free.remove(usable[-1])
        if slot >= 0:
            moves.append(SlotMove(slot, usable[-1], rank))
    return moves


def _levels_of(layout: SlotLayout, rank: int) -> list[tuple[int, int]]:
    return [(level.first_rank, level.rank) for level in layout.levels() if level.first_rank < rank]


@cache
def _levels(capacities: tuple[int, ...]) -> tuple[SlotLevel, ...]:
    levels, first = [], 0
    for end in sorted(set(capacities)):
        reached = sum(capacity >= end for capacity in capacities)
        levels.append(SlotLevel(reached, first, end - first))
        first = end
    return tuple(levels)


def plan_slots(ranks: Sequence[int], max_slots: int, max_rank: int | None, max_ranks: int, needed: int) -> SlotLayout:
    """Slots for adapters of these ranks, as many as are allowed, in the ranks' proportions.

    Args:
        ranks: of the adapters that exist; those above max_rank get no slot.
        max_slots: how many slots at most.
        max_ranks: of all slots together, for the memory that they take.
        needed: the rank that must have a slot, while larger ones that have no room are left out.

    Raises:
        ConfigError: not even that one alone has room.
    """
    served = [rank for rank in ranks if max_rank is None or rank <= max_rank]
    capacities = sorted(map(_capacity, served), reverse=True)
    capacities = [each for each in capacities if each <= max(max_ranks, _capacity(needed))]
    if not capacities:
        return SlotLayout(())
    if capacities[0] > max_ranks:
        raise ConfigError(
            f"engine: adapter_memory holds {max_ranks} ranks, and the largest adapter alone has {capacities[0]}: "
            "raise it, or lower max_lora_rank"
        )
    num_slots = min(len(capacities), max_slots)
    while True:
        chosen = _spread(capacities, num_slots)
        if sum(chosen) <= max_ranks:
            return SlotLayout(tuple(chosen))
        num_slots -= 1


def _capacity(rank: int) -> int:
    capacity = _SMALLEST
    while capacity < rank:
        capacity *= 2
    return capacity


def _spread(capacities: list[int], count: int) -> list[int]:
    """`count` of the falling capacities, the largest and then evenly spread, so that every adapter fits somewhere."""
    return [capacities[place * len(capacities) // count] for place in range(count)]
