"""A tensor on its way here, piece by piece, which may be looked at while they are in the cores' cache."""

import math

import numpy as np
import xxhash

from mindgen.kernels.dtypes import FILE_STORAGE, STORAGE
from mindgen.kernels.library import DType, KernelLibrary
from mindgen.weights.checksum import Examined, begin_checksum
from mindgen.weights.mapped_tensor import MappedTensor

_BLOCK_BYTES = 1 << 20  # copied, and then read again


class IncomingTensor:
    """
    Args:
        dtype, shape: of all of it.
        data: where its bytes go, (num_bytes,); None if nobody wants it.
        kernels: what looks at its values; None to have `examined` know nothing.

    Attributes:
        num_bytes: of all of it.
        received: bytes that have come.
    """

    def __init__(
        self, dtype: str, shape: tuple[int, ...], data: np.ndarray | None, kernels: KernelLibrary | None
    ) -> None:
        self._dtype, self._shape, self._data, self._kernels = dtype, shape, data, kernels
        self._item_size = FILE_STORAGE[dtype]().itemsize
        self.num_bytes = math.prod(shape) * self._item_size
        self.received = 0
        can_be_examined = kernels is not None and dtype in STORAGE
        self._checksum: xxhash.xxh3_128 | None = begin_checksum(dtype, shape) if can_be_examined else None
        self._is_finite = True

    def add(self, piece: np.ndarray) -> None:
        """The bytes that follow, of which there are not more than miss."""
        start, self.received = self.received, self.received + len(piece)
        if self._data is None:
            return
        place = self._data[start : self.received]
        if any(each % self._item_size for each in (start, len(piece), piece.ctypes.data)):
            self._checksum = None  # elements in two parts, or at odd addresses, can be looked at only later
        if self._checksum is None or self._kernels is None:
            place[:] = piece
            return
        storage, dtype = FILE_STORAGE[self._dtype], DType[self._dtype.upper()]
        for first in range(0, len(piece), _BLOCK_BYTES):
            block, copied = (each[first : first + _BLOCK_BYTES] for each in (piece, place))
            self._is_finite &= self._kernels.copy_finite(block.view(storage), copied.view(storage), dtype)
            self._checksum.update(copied.data)

    def tensor(self) -> MappedTensor | None:
        """Once all of it is here."""
        if self._data is None:
            return None
        return MappedTensor(self._dtype, self._data.view(FILE_STORAGE[self._dtype]).reshape(self._shape))

    def examined(self) -> Examined | None:
        """What the pieces have shown; None if they could not."""
        return None if self._checksum is None else Examined(self._checksum.hexdigest(), self._is_finite)
