"""Host memory for the KV blocks of sequences that had to give their place up."""

from collections.abc import Iterable

import numpy as np

from mindgen.engine.schedule import Schedule
from mindgen.engine.sequence import Sequence


class SwapSpace:
    """Keeps blocks as they were, by sequence; how many there may be is the scheduler's business.

    Args:
        caches: of all layers (num_blocks, ...), read and written in place.
    """

    def __init__(self, caches: list[np.ndarray]) -> None:
        self._caches = caches
        self._kept: dict[Sequence, list[np.ndarray]] = {}

    def move(self, schedule: Schedule) -> None:
        """Blocks out and in, as a step wants it."""
        for sequence, blocks in schedule.swapped_out:
            self._kept[sequence] = [cache[blocks] for cache in self._caches]
        for sequence in schedule.swapped_in:
            for cache, kept in zip(self._caches, self._kept.pop(sequence), strict=True):
                cache[sequence.block_table[: len(kept)]] = kept

    def forget_finished(self) -> None:
        """Drops the blocks of sequences that have ended while they waited."""
        if self._kept:
            self._kept = {each: kept for each, kept in self._kept.items() if each.finish_reason is None}

    def check_integrity(self, unfinished: Iterable[Sequence]) -> None:
        """Raises AssertionError unless every waiting sequence has as many blocks here as it says."""
        for sequence in unfinished:
            kept = self._kept.get(sequence)
            assert sequence.swapped_blocks == (0 if kept is None else len(kept[0])), "swapped blocks are lost"
