"""Memory for the tensors of one update after the other."""

import mmap
import weakref
from collections import deque

import numpy as np

from mindgen.kernels.arena import map_piece, padded


class RecycledMemory:
    """Hands out memory in which something lies already; what nobody has any more is handed out again, for fresh memory
    costs more than all that is done with it.

    Args:
        piece_bytes: what to ask the system for at a time; what is larger gets a piece of its own.
    """

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._spare: deque[mmap.mmap] = deque()
        self._piece, self._used = np.empty(0, np.uint8), 0

    def begin(self) -> None:
        """What follows has no piece in common with what came before, so that each can go alone."""
        self._piece, self._used = np.empty(0, np.uint8), 0

    def take(self, num_bytes: int) -> np.ndarray:
        """(num_bytes,)"""
        if self._used + num_bytes > len(self._piece):
            memory = self._find(num_bytes)
            self._piece, self._used = np.frombuffer(memory, np.uint8), 0
            weakref.finalize(self._piece, self._spare.append, memory)  # once no part of it is left
        part = self._piece[self._used : self._used + num_bytes]
        self._used += padded(num_bytes)
        return part

    def _find(self, num_bytes: int) -> mmap.mmap:
        large_enough = [each for each in self._spare if len(each) >= num_bytes]
        if not large_enough:
            return map_piece(max(num_bytes, self._piece_bytes))
        smallest = min(large_enough, key=len)
        self._spare.remove(smallest)
        return smallest
