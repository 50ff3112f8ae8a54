"""Matrices turned and scaled on their way from one dtype to another, with the interpreter free for other threads."""

import numpy as np

from mindgen.kernels.library import DType, KernelLibrary


def scale_transpose(
    kernels: KernelLibrary, x: np.ndarray, x_dtype: str, y: np.ndarray, y_dtype: str, scale: float = 1.0
) -> None:
    """y (columns, rows) = scale * x^T in float32, x (rows, columns); both in the storage of their dtypes."""
    assert y.shape == x.shape[::-1], "y is x turned"
    if x.size == 0:
        return
    if x.strides[1] != x.itemsize:
        x = np.ascontiguousarray(x)
    assert y.strides[1] == y.itemsize or x.shape[0] == 1, "a row of y is one piece"
    kernels.call(
        "scale_transpose", _address(x), _row_step(x), DType[x_dtype.upper()], _address(y), _row_step(y),
        DType[y_dtype.upper()], *x.shape, scale,
    )  # fmt: skip


def _address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _row_step(x: np.ndarray) -> int:
    """From row to row in elements; numpy may give a single row any stride."""
    return x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]
