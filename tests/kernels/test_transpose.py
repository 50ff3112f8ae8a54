import numpy as np
import pytest

from mindgen.errors import KernelError
from mindgen.kernels import dtypes
from mindgen.kernels.library import DType


def record(x, x_dtype, y, y_dtype, scale=1.0):
    """mg_scale_transpose_call"""
    steps = [each.strides[0] // each.itemsize for each in (x, y)]
    types = DType[x_dtype.upper()], DType[y_dtype.upper()]
    return (x.ctypes.data, y.ctypes.data, *steps, *x.shape, *types, scale)


def scale_transpose(library, *calls):
    fields = [("x", np.uintp), ("y", np.uintp), *((name, np.int64) for name in ("x_step", "y_step", "rows", "columns"))]
    fields += [("from", np.int32), ("to", np.int32), ("scale", np.float32)]
    library.call("scale_transpose_all", np.array(list(calls), np.dtype(fields, align=True)), len(calls))


@pytest.mark.parametrize("to_dtype", dtypes.STORAGE)
@pytest.mark.parametrize("from_dtype", dtypes.STORAGE)
@pytest.mark.parametrize("shape", [(1, 1), (8, 37), (37, 8), (16, 16), (5, 100), (33, 70)])
def test_every_value_is_scaled_in_float32_and_rounded_once(kernels, shape, from_dtype, to_dtype):
    rows, columns = shape
    values = np.random.default_rng(0).standard_normal((rows, columns + 3), np.float32)
    x = dtypes.from_float32(values, from_dtype)[:, 2 : columns + 2]
    whole = np.full((columns, rows + 4), 7, dtypes.STORAGE[to_dtype])
    scale_transpose(kernels, record(x, from_dtype, whole[:, 1 : rows + 1], to_dtype, 1.3))
    scaled = dtypes.to_float32(x, from_dtype) * np.float32(1.3)
    np.testing.assert_array_equal(whole[:, 1 : rows + 1], dtypes.from_float32(scaled, to_dtype).T)
    assert (whole[:, 0] == 7).all() and (whole[:, rows + 1 :] == 7).all(), "what lies beside y is left alone"


def test_many_in_one_call(library):
    generator = np.random.default_rng(0)
    pairs = [
        (x := generator.standard_normal((rows, 40), np.float32), np.zeros(x.shape[::-1], np.float32))
        for rows in range(1, 30)
    ]
    scale_transpose(library, *(record(x, "float32", y, "float32") for x, y in pairs))
    for x, y in pairs:
        np.testing.assert_array_equal(y, x.T)


def test_nothing(library):
    scale_transpose(library)


@pytest.mark.parametrize(
    "x_step, x_dtype, rows, columns, message",
    [
        (4, DType.INT32, 2, 4, "not between floats"),
        (4, DType.FLOAT32, -1, 4, r"x \(-1, 4\)"),
        (3, DType.FLOAT32, 2, 4, "steps of 3"),
    ],
)
def test_bad_arguments(library, x_step, x_dtype, rows, columns, message):
    x, y = np.zeros(8, np.float32), np.full(8, 7, np.float32)
    with pytest.raises(KernelError, match=message):
        library.call("scale_transpose", x, x_step, x_dtype, y, 2, DType.FLOAT32, rows, columns, 1.0)
    with pytest.raises(KernelError, match="NULL"):
        library.call("scale_transpose", None, 4, DType.FLOAT32, y, 2, DType.FLOAT32, 2, 4, 1.0)
    assert (y == 7).all()


def test_a_bad_one_among_many(library):
    x, y = np.zeros((2, 4), np.float32), np.zeros((4, 2), np.float32)
    with pytest.raises(KernelError, match="steps of 4 and 1"):
        scale_transpose(
            library, record(x, "float32", y, "float32"), record(x, "float32", y[:2].reshape(4, 1), "float32")
        )
