import numpy as np
import pytest

from mindgen import dtypes
from mindgen.errors import KernelError
from mindgen.kernels.library import DType
from mindgen.kernels.transpose import Transposes


def scale_transpose(library, x, x_dtype, y, y_dtype, scale=1.0):
    transposes = Transposes()
    transposes.add(x, x_dtype, y, y_dtype, scale)
    transposes.run(library)


@pytest.mark.parametrize("to_dtype", dtypes.STORAGE)
@pytest.mark.parametrize("from_dtype", dtypes.STORAGE)
@pytest.mark.parametrize("shape", [(1, 1), (8, 37), (37, 8), (16, 16), (5, 100), (33, 70)])
def test_every_value_is_scaled_in_float32_and_rounded_once(kernels, shape, from_dtype, to_dtype):
    rows, columns = shape
    values = np.random.default_rng(0).standard_normal((rows, columns + 3), np.float32)
    x = dtypes.from_float32(values, from_dtype)[:, 2 : columns + 2]
    whole = np.full((columns, rows + 4), 7, dtypes.STORAGE[to_dtype])
    scale_transpose(kernels, x, from_dtype, whole[:, 1 : rows + 1], to_dtype, 1.3)
    scaled = dtypes.to_float32(x, from_dtype) * np.float32(1.3)
    np.testing.assert_array_equal(whole[:, 1 : rows + 1], dtypes.from_float32(scaled, to_dtype).T)
    assert (whole[:, 0] == 7).all() and (whole[:, rows + 1 :] == 7).all(), "what lies beside y is left alone"


def test_any_strides_of_x(library):
    x, y = np.arange(60, dtype=np.float32).reshape(5, 12), np.zeros((12, 5), np.float32)
    scale_transpose(library, x.T.copy().T, "float32", y, "float32")
    np.testing.assert_array_equal(y, x.T)
    single = np.zeros((5, 1), np.float32)
    scale_transpose(library, x[:1, ::2][:, :5], "float32", single, "float32")
    np.testing.assert_array_equal(single, x[:1, :10:2].T)


def test_many_in_one_call(library):
    generator, transposes = np.random.default_rng(0), Transposes()
    pairs = [(x := generator.standard_normal((rows, 40), np.float32), np.zeros_like(x.T)) for rows in range(1, 30)]
    for x, y in pairs:
        transposes.add(x, "float32", y, "float32")
    transposes.run(library)
    transposes.run(library)  # nothing is left
    for x, y in pairs:
        np.testing.assert_array_equal(y, x.T)


def test_nothing(library):
    scale_transpose(library, np.zeros((0, 3), np.float32), "float32", np.zeros((3, 0), np.float32), "float32")


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
