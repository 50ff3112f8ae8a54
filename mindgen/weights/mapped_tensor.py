"""A tensor as it lies in a file, whatever the file's format."""

import mmap
from dataclasses import dataclass

import numpy as np

from mindgen import dtypes


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor as it lies in a file: `data` is a view of the mapped file, in the storage of dtype."""

    dtype: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def as_dtype(self, dtype: str) -> np.ndarray:
        """The tensor, which must be of floats, in the storage of dtype: the mapped view itself, or a converted copy."""
        if self.dtype == dtype:
            return self.data
        return dtypes.from_float32(dtypes.to_float32(self.data, self.dtype), dtype)

    def release(self) -> None:
        """Lets go of the memory that holds the file's pages; whoever looks at `data` again reads them again."""
        whole: object = self.data
        while isinstance(whole, np.ndarray):
            whole = whole.base
        if not isinstance(whole, mmap.mmap):
            return
        start = self.data.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
        first, end = -(-start // mmap.PAGESIZE), (start + self.data.nbytes) // mmap.PAGESIZE
        if end > first:
            whole.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)
