"""Tensors that are made of others, a few rows at a time: transposed, cut, joined, or with rows in another order."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.weights.mapped_tensor import MadeTensor, MappedTensor


def transposed(tensor: MappedTensor) -> MappedTensor:
    """The matrix with its axes exchanged: a view, where the tensor itself is one."""
    if not isinstance(tensor, MadeTensor):
        return replace(tensor, data=tensor.data.T)
    rows, columns = tensor.shape

    def write(first: int, last: int, target: np.ndarray, dtype: str) -> None:
        target[...] = tensor.as_dtype(dtype)[:, first:last].T

    return MadeTensor(tensor.dtype, (columns, rows), write, tensor.release, tensor.packed_as)


def cut_rows(tensor: MappedTensor, first: int, last: int) -> MappedTensor:
    """Rows first to last: a view, where the tensor itself is one."""
    if not isinstance(tensor, MadeTensor):
        return tensor.rows(first, last)

    def write(start: int, stop: int, target: np.ndarray, dtype: str) -> None:
        tensor.write_rows(first + start, first + stop, target, dtype)

    return MadeTensor(tensor.dtype, (last - first, *tensor.shape[1:]), write, tensor.release, tensor.packed_as)


def join_rows(name: str, parts: Sequence[MappedTensor]) -> MappedTensor:
    """The rows of all parts, one part after the other.

    Raises:
        CheckpointError: the parts of the tensor of that name have different dtypes, or rows of different shapes.
    """
    if len({(part.dtype, part.packed_as, part.shape[1:]) for part in parts}) != 1:
        kinds = ", ".join(f"{part.dtype} {part.shape}" for part in parts)
        raise CheckpointError(f"{name} cannot be joined of parts that differ: {kinds}")
    ends = np.cumsum([part.shape[0] for part in parts]).tolist()
    begins = [0, *ends[:-1]]

    def write(first: int, last: int, target: np.ndarray, dtype: str) -> None:
        for part, begin, end in zip(parts, begins, ends, strict=True):
            start, stop = max(first, begin), min(last, end)
            if start < stop:
                part.write_rows(start - begin, stop - begin, target[start - first : stop - first], dtype)

    def release() -> None:
        for part in parts:
            part.release()

    first_part = parts[0]
    return MadeTensor(first_part.dtype, (ends[-1], *first_part.shape[1:]), write, release, first_part.packed_as)


def order_rows(tensor: MappedTensor, order: np.ndarray) -> MappedTensor:
    """The tensor's rows in this order, which keeps rows near each other: what lies between them is read as well."""

    def write(first: int, last: int, target: np.ndarray, dtype: str) -> None:
        wanted = order[first:last]
        if wanted.size:
            lowest = int(wanted.min())
            target[...] = tensor.rows_as(lowest, int(wanted.max()) + 1, dtype)[wanted - lowest]

    return MadeTensor(tensor.dtype, (len(order), *tensor.shape[1:]), write, tensor.release, tensor.packed_as)
