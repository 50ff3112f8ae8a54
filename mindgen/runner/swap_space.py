"""Host memory for the KV blocks of sequences that had to give their place up."""

from collections.abc import Iterable
from itertools import count
from typing import Protocol

import numpy as np

from mindgen.engine.schedule import Schedule
from mindgen.engine.sequence import Sequence
from mindgen.kernels.row_memory import RowMemory


class BlockStore:
    """Keeps blocks as they were, by a key.

    Args:
        caches: of all layers (num_blocks, ...), read and written in place.
    """

    def __init__(self, caches: list[RowMemory]) -> None:
        self._caches = caches
        self._kept: dict[int, list[np.ndarray]] = {}

    def keep(self, key: int, blocks: list[int]) -> None:
        self._kept[key] = [cache[blocks] for cache in self._caches]

    def restore(self, key: int, blocks: list[int]) -> None:
        """Puts them back, into other blocks."""
        for cache, kept in zip(self._caches, self._kept.pop(key), strict=True):
            cache[blocks] = kept

    def drop(self, key: int) -> None:
        del self._kept[key]


class AnyBlockStore(Protocol):
    """A BlockStore, here or on several ranks."""

    def keep(self, key: int, blocks: list[int]) -> None: ...
    def restore(self, key: int, blocks: list[int]) -> None: ...
    def drop(self, key: int) -> None: ...


class SwapSpace:
    """The blocks of waiting sequences; how many there may be is the scheduler's business."""

    def __init__(self, store: AnyBlockStore) -> None:
        self._store = store
        self._keys = count()
        self._kept: dict[Sequence, tuple[int, int]] = {}  # key, number of blocks

    def move(self, schedule: Schedule) -> None:
        """Blocks out and in, as a step wants it."""
        for sequence, blocks in schedule.swapped_out:
            key = next(self._keys)
            self._store.keep(key, blocks)
            self._kept[sequence] = key, len(blocks)
        for sequence in schedule.swapped_in:
            key, num_blocks = self._kept.pop(sequence)
            self._store.restore(key, sequence.block_table[:num_blocks])

    def forget_finished(self) -> None:
        """Drops the blocks of sequences that have ended while they waited."""
        for sequence in [each for each in self._kept if each.finish_reason is not None]:
            self._store.drop(self._kept.pop(sequence)[0])

    def check_integrity(self, unfinished: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every waiting sequence has as many blocks here as it says."""
        for sequence in unfinished:
            _, num_blocks = self._kept.get(sequence, (0, 0))
            assert sequence.swapped_blocks == num_blocks, "swapped blocks are lost"
