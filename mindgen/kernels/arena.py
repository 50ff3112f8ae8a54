"""Arrays that lie side by side in large pieces of memory, instead of one allocation for each."""

import math
import mmap

import numpy as np

_ALIGNMENT = 64
_LARGE_PAGE = 2 << 20


class Arena:
    """Hands out arrays of zeros, one after the other; the memory lives as long as any of them.

    The system gives it as it is first touched, in large pages where it has them: then a kernel that reads it has fewer
    addresses to look up.

    Args:
        piece_bytes: what to ask the system for at a time; an array that is larger gets a piece of its own.
    """

    def __init__(self, piece_bytes: int) -> None:
        self._piece_bytes = piece_bytes
        self._piece, self._used = map_piece(piece_bytes), 0

    def zeros(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        count = math.prod(shape)
        num_bytes = padded(count * np.dtype(dtype).itemsize)
        if self._used + num_bytes > len(self._piece):
            self._piece, self._used = map_piece(max(num_bytes, self._piece_bytes)), 0
        array: np.ndarray = np.frombuffer(self._piece, dtype, count, self._used).reshape(shape)
        self._used += num_bytes
        return array


def padded(num_bytes: int) -> int:
    """What an array of so many bytes takes of an arena."""
    return -(-num_bytes // _ALIGNMENT) * _ALIGNMENT


def map_piece(num_bytes: int) -> mmap.mmap:
    """Fresh memory, in large pages where there are some."""
    piece = mmap.mmap(-1, max(num_bytes, 1), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if num_bytes >= _LARGE_PAGE and hasattr(mmap, "MADV_HUGEPAGE"):
        piece.madvise(mmap.MADV_HUGEPAGE)
    return piece
