"""Matrices turned and scaled on their way from one dtype to another, with the interpreter free for other threads."""

import numpy as np

from mindgen.dtypes import STORAGE
from mindgen.kernels.library import DType, KernelLibrary

_CALL = np.dtype(  # mg_scale_transpose_call
    [
        ("x", np.uintp), ("y", np.uintp), ("x_step", np.int64), ("y_step", np.int64), ("rows", np.int64),
        ("columns", np.int64), ("from", np.int32), ("to", np.int32), ("scale", np.float32),
    ],
    align=True,
)  # fmt: skip
_DTYPES = {name: int(DType[name.upper()]) for name in STORAGE}


class Transposes:
    """Matrices to turn, many in one call: what lies between them costs more than a small one itself."""

    def __init__(self) -> None:
        self._calls: list[tuple[float, ...]] = []
        self._arrays: list[np.ndarray] = []  # stay alive until they have been turned

    def add(self, x: np.ndarray, x_dtype: str, y: np.ndarray, y_dtype: str, scale: float = 1.0) -> None:
        """y (columns, rows) = scale * x^T in float32, x (rows, columns); both in the storage of their dtypes."""
        assert y.shape == x.shape[::-1], "y is x turned"
        if x.size == 0:
            return
        if x.strides[1] != x.itemsize:
            x = np.ascontiguousarray(x)
        assert y.strides[1] == y.itemsize or x.shape[0] == 1, "a row of y is one piece"
        self._arrays += (x, y)
        self._calls.append(
            (
                address(x), address(y), _row_step(x), _row_step(y), *x.shape,
                _DTYPES[x_dtype], _DTYPES[y_dtype], scale,
            )
        )  # fmt: skip

    def run(self, kernels: KernelLibrary) -> None:
        kernels.call("scale_transpose_all", np.array(self._calls, _CALL), len(self._calls))
        self._calls.clear()
        self._arrays.clear()


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _row_step(x: np.ndarray) -> int:
    """From row to row in elements; numpy may give a single row any stride."""
    return x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]
