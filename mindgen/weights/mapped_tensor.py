"""A tensor as it lies in a file, whatever the file's format."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mindgen import dtypes
from mindgen.kernels import plugin


@dataclass(frozen=True, slots=True)
class MappedTensor:
    """A tensor as it lies in a file: `data` is a view of the mapped file, in the storage of dtype."""

    dtype: str
    data: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return self.data.nbytes

    def rows(self, first: int, last: int) -> "MappedTensor":
        """Those of its first axis."""
        return MappedTensor(self.dtype, self.data[first:last])

    def unpacked(self, dtype: str) -> "MappedTensor":
        """A tensor whose data is there: itself, or one of that dtype where the file holds fewer bits."""
        return self

    def as_dtype(self, dtype: str) -> np.ndarray:
        """The tensor, which must be of floats, in the storage of dtype: the mapped view itself, or a converted copy."""
        if self.dtype == dtype:
            return self.data
        return dtypes.from_float32(dtypes.to_float32(self.data, self.dtype), dtype)

    def write_to(self, target: np.ndarray, dtype: str) -> None:
        """Writes the tensor, which must be of floats, to memory of its shape in one piece, in the storage of dtype."""
        if self.dtype == dtype and self.data.flags.c_contiguous:
            plugin.load_kernels().call("copy", self.data, target, target.nbytes)  # by all threads
        else:
            target[...] = self.as_dtype(dtype)

    def release(self) -> None:
        """Lets go of the memory that holds the file's pages; whoever looks at `data` again reads them again."""
        release_pages(self.data)


class PackedTensor(MappedTensor):
    """A tensor that the file holds in fewer bits than a float has; its data is made anew at each look.

    Args:
        packed: a view of the mapped file.
        unpack: writes rows first to last into memory in one piece, in the storage of that dtype.
    """

    __slots__ = ("_packed", "_shape", "_unpack")
    _packed: np.ndarray
    _shape: tuple[int, ...]
    _unpack: Callable[[int, int, np.ndarray, str], None]

    def __init__(
        self, shape: tuple[int, ...], packed: np.ndarray, unpack: Callable[[int, int, np.ndarray, str], None]
    ) -> None:
        object.__setattr__(self, "dtype", "float32")
        object.__setattr__(self, "_shape", shape)
        object.__setattr__(self, "_packed", packed)
        object.__setattr__(self, "_unpack", unpack)

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        return self.as_dtype(self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def nbytes(self) -> int:
        return int(np.prod(self._shape)) * np.dtype(np.float32).itemsize

    def rows(self, first: int, last: int) -> MappedTensor:
        first, last, _ = slice(first, last).indices(self._shape[0])
        return MappedTensor(self.dtype, self._rows(first, last, self.dtype))

    def unpacked(self, dtype: str) -> MappedTensor:
        return MappedTensor(dtype, self.as_dtype(dtype))

    def as_dtype(self, dtype: str) -> np.ndarray:
        return self._rows(0, self._shape[0], dtype)

    def _rows(self, first: int, last: int, dtype: str) -> np.ndarray:
        result: np.ndarray = np.empty((last - first, *self._shape[1:]), dtypes.STORAGE[dtype])
        self._unpack(first, last, result, dtype)
        return result

    def write_to(self, target: np.ndarray, dtype: str) -> None:
        self._unpack(0, self._shape[0], target, dtype)

    def release(self) -> None:
        release_pages(self._packed)


def release_pages(view: np.ndarray) -> None:
    """Lets go of the memory that holds these pages of a mapped file."""
    whole: object = view
    while isinstance(whole, np.ndarray | memoryview):
        whole = whole.base if isinstance(whole, np.ndarray) else whole.obj
    if not isinstance(whole, mmap.mmap):
        return
    start = view.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    first, end = -(-start // mmap.PAGESIZE), (start + view.nbytes) // mmap.PAGESIZE
    if end > first:
        whole.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)
