"""A tensor as it lies in a file, whatever the file's format."""

import math
import mmap
from collections.abc import Callable
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

    @property
    def nbytes(self) -> int:
        """Of its data."""
        return self.data.nbytes

    def rows(self, first: int, last: int) -> "MappedTensor":
        """Those of its first axis."""
        return MappedTensor(self.dtype, self.data[first:last])

    @property
    def is_packed(self) -> bool:
        """Whether the file holds fewer bits than the dtype has."""
        return False

    def rows_as(self, first: int, last: int, dtype: str) -> np.ndarray:
        """Those of its first axis, in the storage of dtype."""
        return self.rows(first, last).as_dtype(dtype)

    def unpacked(self, dtype: str) -> "MappedTensor":
        """A tensor whose data is there: itself, or one of that dtype where the file holds fewer bits."""
        return self

    def as_dtype(self, dtype: str) -> np.ndarray:
        """The tensor, which must be of floats, in the storage of dtype: the mapped view itself, or a converted copy."""
        if self.dtype == dtype:
            return self.data
        return dtypes.from_float32(dtypes.to_float32(self.data, self.dtype), dtype)

    def copy(self) -> "MappedTensor":
        """The same in memory of its own."""
        return MappedTensor(self.dtype, np.array(self.data, order="C"))

    def release(self) -> None:
        """Lets go of the memory that holds the file's pages; whoever looks at `data` again reads them again."""
        release_pages(self.data)


class MadeTensor(MappedTensor):
    """A tensor whose data is made anew at each look, of a file that holds it in another form.

    Args:
        dtype: that it has by itself.
        make: rows first to last, in the storage of that dtype.
        release: lets go of the memory that holds the file's pages.
        is_packed: whether the file holds fewer bits than the dtype has.
    """

    __slots__ = ("_is_packed", "_make", "_release", "_shape")
    _shape: tuple[int, ...]
    _make: Callable[[int, int, str], np.ndarray]
    _release: Callable[[], None]
    _is_packed: bool

    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        make: Callable[[int, int, str], np.ndarray],
        release: Callable[[], None],
        is_packed: bool = False,
    ) -> None:
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "_shape", shape)
        object.__setattr__(self, "_make", make)
        object.__setattr__(self, "_release", release)
        object.__setattr__(self, "_is_packed", is_packed)

    @property
    def data(self) -> np.ndarray:  # type: ignore[override]
        return self.as_dtype(self.dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def nbytes(self) -> int:
        return math.prod(self._shape) * np.dtype(dtypes.FILE_STORAGE[self.dtype]).itemsize

    @property
    def is_packed(self) -> bool:
        return self._is_packed

    def rows(self, first: int, last: int) -> MappedTensor:
        return MappedTensor(self.dtype, self.rows_as(first, last, self.dtype))

    def rows_as(self, first: int, last: int, dtype: str) -> np.ndarray:
        first, last, _ = slice(first, last).indices(self._shape[0])
        return self._make(first, last, dtype)

    def unpacked(self, dtype: str) -> MappedTensor:
        return MappedTensor(dtype, self.as_dtype(dtype))

    def as_dtype(self, dtype: str) -> np.ndarray:
        return self._make(0, self._shape[0], dtype)

    def release(self) -> None:
        self._release()


def packed_tensor(
    shape: tuple[int, ...], packed: np.ndarray, unpack: Callable[[int, int, str], np.ndarray]
) -> MadeTensor:
    """A tensor that the file holds in fewer bits than a float has: `packed` is the view of the mapped file."""
    return MadeTensor("float32", shape, unpack, lambda: release_pages(packed), is_packed=True)


def release_pages(view: np.ndarray) -> None:
    """Lets go of the memory that holds these pages of a mapped file."""
    whole: object = view
    while isinstance(whole, np.ndarray):
        whole = whole.base
    if not isinstance(whole, mmap.mmap):
        return
    start = view.ctypes.data - np.frombuffer(whole, np.uint8).ctypes.data
    first, end = -(-start // mmap.PAGESIZE), (start + view.nbytes) // mmap.PAGESIZE
    if end > first:
        whole.madvise(mmap.MADV_DONTNEED, first * mmap.PAGESIZE, (end - first) * mmap.PAGESIZE)
