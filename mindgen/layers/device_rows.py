"""Parameters that the host reads and writes row by row: in its own memory, or in a device's."""

import math

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, ops

from mindgen.kernels import dtypes
from mindgen.kernels.arena import Arena
from mindgen.kernels.row_memory import RowMemory, Rows
from mindgen.layers.parameters import as_tensor, empty_parameter, share, whole_parameter
from mindgen.parallel.layout import WHOLE, Shard, TensorLayout


class DeviceRows:
    """The rows of a parameter on the device, each in the storage of its dtype.

    What is written before `allocate` waits for it: till then the parameter has the shape that MindSpore's compiler
    slices, and no memory.

    Args:
        shape: of this rank's slice.

    Attributes:
        nbytes: of all rows.
    """

    def __init__(self, parameter: Parameter, shape: tuple[int, ...], dtype: str) -> None:
        self._parameter = parameter
        self._shape = shape
        self._dtype = dtype
        self._waiting: list[tuple[Rows, np.ndarray | int]] | None = []
        self.nbytes = math.prod(shape) * dtypes.STORAGE[dtype]().itemsize

    def allocate(self) -> None:
        """Takes memory, of zeros, once; the network must have been sliced."""
        if self._waiting is None:
            return
        waiting, self._waiting = self._waiting, None
        share(self._parameter, np.zeros(self._shape, dtypes.STORAGE[self._dtype]), self._dtype)
        for rows, values in waiting:
            self[rows] = values

    def __getitem__(self, rows: list[int]) -> np.ndarray:
        """A copy of these rows."""
        if self._waiting is not None:
            stored: np.ndarray = np.zeros(self._shape, dtypes.STORAGE[self._dtype])
            for waiting, values in self._waiting:
                stored[waiting] = values
            return stored[rows]
        taken = ops.gather(self._parameter, _indices(rows), 0).asnumpy()
        return np.asarray(taken).view(dtypes.STORAGE[self._dtype])

    def __setitem__(self, rows: Rows, values: np.ndarray | int) -> None:
        if self._waiting is not None:
            self._waiting.append((rows, values))
            return
        shape = self._shape[1:] if isinstance(rows, int) else (len(rows), *self._shape[1:])
        written: np.ndarray = np.empty(shape, dtypes.STORAGE[self._dtype])
        written[...] = values
        self._parameter[rows if isinstance(rows, int) else _indices(rows)] = as_tensor(written, self._dtype)

    def put(self, row: int, stored: np.ndarray) -> None:
        """Writes a row from the beginning of these bytes, which others may have afterwards."""
        num_bytes = self.nbytes // self._shape[0]
        self[row] = stored[:num_bytes].copy().view(dtypes.STORAGE[self._dtype]).reshape(self._shape[1:])

    def copy(self, sources: list[int], targets: list[int]) -> None:
        """Copies rows without the host seeing them."""
        self._parameter[_indices(targets)] = ops.gather(self._parameter, _indices(sources), 0)


def zeros_parameter(
    layout: TensorLayout, dtype: str, name: str, shard: Shard = WHOLE, arena: Arena | None = None
) -> tuple[Parameter, RowMemory]:
    """A parameter of zeros and the memory it lives in, through which it can be written.

    Args:
        arena: where it is to lie on the host; None is a place of its own.
    """
    if shard.sliced_by_compiler:
        parameter = whole_parameter(shard.shape(layout), dtype, name)
        return parameter, DeviceRows(parameter, shard.sliced.shape(layout), dtype)
    shape, storage = shard.shape(layout), dtypes.STORAGE[dtype]
    array: np.ndarray = np.zeros(shape, storage) if arena is None else arena.zeros(shape, storage)
    parameter = empty_parameter(dtype, name)
    share(parameter, array, dtype)
    return parameter, array


def _indices(rows: list[int]) -> Tensor:
    return Tensor(rows, mindspore.int32)
