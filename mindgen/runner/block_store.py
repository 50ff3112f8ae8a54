"""What a runner does with blocks of its KV caches besides computing them."""

from typing import NamedTuple

import numpy as np

from mindgen.kernels.row_memory import RowMemory


class BlockCopy(NamedTuple):
    """A block whose content must be in another before the next step writes there."""

    source: int
    target: int


class BlockStore:
    """Keeps blocks as they were, by a key.

    Args:
        caches: of all layers (num_blocks, ...), read and written in place.
    """

    def __init__(self, caches: list[RowMemory]) -> None:
        self._caches = caches
        self._kept: dict[int, list[np.ndarray]] = {}

    def keep_blocks(self, key: int, blocks: list[int]) -> None:
        self._kept[key] = [cache[blocks] for cache in self._caches]

    def restore_blocks(self, key: int, blocks: list[int]) -> None:
        """Puts them back, into other blocks."""
        for cache, kept in zip(self._caches, self._kept.pop(key), strict=True):
            cache[blocks] = kept

    def drop_blocks(self, key: int) -> None:
        del self._kept[key]
