"""Memory that is read and written by rows, wherever it is."""

from typing import Protocol, TypeAlias

import numpy as np

Rows: TypeAlias = int | list[int]


class RowMemory(Protocol):
    """What an array of numpy's can, and rows of a device as well: its rows are those along the first axis."""

    @property
    def nbytes(self) -> int: ...
    def __getitem__(self, rows: list[int], /) -> np.ndarray: ...
    def __setitem__(self, rows: Rows, values: np.ndarray | int, /) -> None: ...
