"""A tensor as it lies in a file, whatever the file's format."""

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from mindgen.kernels import dtypes, plugin

# Writes rows first to last into memory in one piece, in the storage of a dtype.
Write: TypeAlias = Callable[[int, int, np.ndarray, str], None]


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

    @property
    def packed_as(self) -> str | None:
        """What its values are in the file, where that holds fewer bits than the dtype has."""
        return None

    @property
    def kind(self) -> str:
        """What its values are in the file."""
        return self.packed_as or self.dtype

    def rows(self, first: int, last: int) -> "MappedTensor":
        """Those of its first axis."""
        return MappedTensor(self.dtype, self.data[first:last])

    @property
    def is_packed(self) -> bool:
        """Whether the file holds fewer bits than the dtype has."""
        return self.packed_as is not None

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

    def write_to(self, target: np.ndarray, dtype: str) -> None:
        """Writes the tensor, which must be of floats, to memory of its shape in one piece, in the storage of dtype."""
        if self.dtype == dtype and self.data.flags.c_contiguous:
            plugin.load_kernels().call("copy", self.data, target, target.nbytes)  # by all threads
        else:
            target[...] = self.as_dtype(dtype)

    def write_rows(self, first: int, last: int, target: np.ndarray, dtype: str) -> None:
        """The same with some of its rows."""
        self.rows(first, last).write_to(target, dtype)

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
        write: makes some of its rows.
        release: lets go of the memory that holds the file's pages.
        packed_as: what the values are in the file, where it holds fewer bits than the dtype has.
    """

    __slots__ = ("_packed_as", "_release", "_shape", "_write")
    _shape: tuple[int, ...]
    _write: Write
    _release: Callable[[], None]
    _packed_as: str | None

    def __init__(
        self,
        dtype: str,
        shape: tuple[int, ...],
        write: Write,
        release: Callable[[], None],
        packed_as: str | None = None,
    ) -> None:
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "_shape", shape)
        object.__setattr__(self, "_write", write)
        object.__setattr__(self, "_release", release)
        object.__setattr__(self, "_packed_as", packed_as)

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
    def packed_as(self) -> str | None:
        return self._packed_as

    def rows(self, first: int, last: int) -> MappedTensor:
        return MappedTensor(self.dtype, self.rows_as(first, last, self.dtype))

    def rows_as(self, first: int, last: int, dtype: str) -> np.ndarray:
        first, last, _ = slice(first, last).indices(self._shape[0])
        result: np.ndarray = np.empty((last - first, *self._shape[1:]), dtypes.FILE_STORAGE[dtype])
        self._write(first, last, result, dtype)
        return result

    def unpacked(self, dtype: str) -> MappedTensor:
        return MappedTensor(dtype, self.as_dtype(dtype))

    def as_dtype(self, dtype: str) -> np.ndarray:
        return self.rows_as(0, self._shape[0], dtype)

    def write_to(self, target: np.ndarray, dtype: str) -> None:
        self._write(0, self._shape[0], target, dtype)

    def write_rows(self, first: int, last: int, target: np.ndarray, dtype: str) -> None:
        self._write(first, last, target, dtype)

    def release(self) -> None:
        self._release()


def packed_tensor(
    packed_as: str,
    packed: np.ndarray,
    shape: tuple[int, ...],
    unpack: Write,
    dtype: str = "float32",
) -> MadeTensor:
    """A tensor that the file holds in fewer bits than a float has: `packed` is the view of the mapped file."""
    return MadeTensor(dtype, shape, unpack, lambda: release_pages(packed), packed_as)


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
