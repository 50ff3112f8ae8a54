import ctypes

import numpy as np
import pytest
from buffers import EPSILON, SMALLEST, from_bfloat16, from_buffer, to_buffer
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from mindgen.errors import KernelError
from mindgen.kernels.library import DType

OPERATIONS = {"add": np.add, "mul": np.multiply}
ARITHMETIC = [dtype.name.lower() for dtype in DType if dtype != DType.BOOL]
EVERY = [dtype.name.lower() for dtype in DType]


def is_integer(dtype):
    return dtype.startswith(("int", "uint"))


def code(dtype):
    return DType[dtype.upper()]


def element_strides(array, shape):
    strides = np.broadcast_to(array, shape).strides
    return np.array([stride // array.itemsize for stride in strides], np.int64)


def elementwise(kernels, name, a, b, dtype, y=None):
    shape = np.broadcast_shapes(a.shape, b.shape)
    y = np.zeros(shape, a.dtype) if y is None else y
    strides = element_strides(a, shape), element_strides(b, shape)
    kernels.call(name, a, b, y, len(shape), np.array(shape, np.int64), *strides, code(dtype))
    return y


def random_array(rng, shape, dtype):
    if is_integer(dtype):
        return rng.integers(-50000, 50000, shape).astype(dtype)
    return to_buffer(rng.standard_normal(shape), dtype)


def assert_operation(y, name, a, b, dtype):
    if is_integer(dtype):
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(y, OPERATIONS[name](a, b))
    elif dtype == "float64":
        np.testing.assert_array_equal(y, OPERATIONS[name](a, b))
    else:
        expected = OPERATIONS[name](from_buffer(a, dtype), from_buffer(b, dtype))
        # The float32 result is rounded again.
        rtol = (EPSILON[dtype] + EPSILON["float32"]) / 2
        np.testing.assert_allclose(from_buffer(y, dtype), expected, rtol=rtol, atol=SMALLEST[dtype])


@pytest.mark.parametrize("dtype", ARITHMETIC)
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "a_shape, b_shape",
    [
        ((7,), (7,)),
        ((3, 40), (40,)),
        ((40,), (3, 40)),
        ((5, 33), (5, 1)),
        ((5, 1), (1, 33)),
        ((2, 3, 4, 17), (3, 1, 17)),
        ((2, 1, 4, 1), (1, 3, 1, 5)),
        ((6, 7), ()),
        ((), ()),
        ((1, 1), (1, 1)),
        ((200, 301), (200, 301)),
        ((70001,), (1,)),
        ((0, 4), (4,)),
    ],
)
def test_broadcasting(kernels, name, a_shape, b_shape, dtype):
    rng = np.random.default_rng(0)
    a, b = random_array(rng, a_shape, dtype), random_array(rng, b_shape, dtype)
    assert_operation(elementwise(kernels, name, a, b, dtype), name, a, b, dtype)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_shapes(library, data):
    shapes = data.draw(hypothesis_numpy.mutually_broadcastable_shapes(num_shapes=2, max_dims=6, max_side=6))
    name, dtype = data.draw(st.sampled_from(sorted(OPERATIONS))), data.draw(st.sampled_from(ARITHMETIC))
    a, b = (random_array(np.random.default_rng(0), shape, dtype) for shape in shapes.input_shapes)
    assert_operation(elementwise(library, name, a, b, dtype), name, a, b, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_in_place(kernels, dtype):
    rng = np.random.default_rng(0)
    a, b = random_array(rng, (9, 50), dtype), random_array(rng, 50, dtype)
    y = a.copy()
    elementwise(kernels, "add", y, b, dtype, y)
    assert_operation(y, "add", a, b, dtype)


def test_strided_inputs(kernels):
    """Strides are the caller's: here a's rows are every second column."""
    a, b = np.arange(24, dtype=np.float32).reshape(3, 8), np.ones((3, 4), np.float32)
    y = np.zeros((3, 4), np.float32)
    shape, a_strides, b_strides = (np.array(values, np.int64) for values in ((3, 4), (8, 2), (4, 1)))
    kernels.call("add", a, b, y, 2, shape, a_strides, b_strides, DType.FLOAT32)
    np.testing.assert_array_equal(y, a[:, ::2] + 1)


def test_integers_wrap_around(kernels):
    for dtype in ("int8", "int16", "int32", "int64"):
        largest = np.full(3, np.iinfo(dtype).max, dtype)
        np.testing.assert_array_equal(elementwise(kernels, "add", largest, largest, dtype), -2)
        np.testing.assert_array_equal(elementwise(kernels, "mul", largest, largest, dtype), 1)


def test_product_of_bools(kernels):
    a, b = np.array([[True], [False]]), np.array([True, False])
    np.testing.assert_array_equal(elementwise(kernels, "mul", a, b, "bool"), a & b)


def test_bad_arithmetic_arguments(library):
    a, y, shape = np.ones(4, np.float32), np.full(4, np.nan, np.float32), np.array([4])
    one = np.array([1])
    for arguments, message in [
        ((a, a, y, 1, shape, one, one, DType.BOOL), "dtype must be"),
        ((a, a, y, 1, shape, one, one, 13), "no dtype 13"),
        ((a, a, y, 17, shape, one, one, 0), "ndim 17 is not within 0..16"),
        ((a, a, y, 1, -shape, one, one, 0), "dimension 0 has size -4"),
        ((a, None, y, 1, shape, one, one, 0), "NULL"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call("add", *arguments)
    assert np.isnan(y).all()


def values_to_cast(from_dtype, to_dtype):
    if from_dtype == "bool":
        return np.arange(300) % 3 == 0
    if is_integer(from_dtype):
        return np.random.default_rng(0).integers(-1000, 1000, 40003).astype(from_dtype) // 5
    values = np.random.default_rng(0).standard_normal(40003) * 100
    if is_integer(to_dtype):  # what it cannot hold is undefined
        values = np.clip(values, max(np.iinfo(to_dtype).min, -1000), min(np.iinfo(to_dtype).max, 1000))
    return to_buffer(values, from_dtype)


@pytest.mark.parametrize("to_dtype", EVERY)
@pytest.mark.parametrize("from_dtype", EVERY)
def test_cast(kernels, from_dtype, to_dtype):
    x = values_to_cast(from_dtype, to_dtype)
    values = from_bfloat16(x) if from_dtype == "bfloat16" else x
    expected = to_buffer(values.astype(np.float32) if to_dtype == "bfloat16" else values, to_dtype)
    for count in (1, 19, x.size):
        y = np.zeros(count, expected.dtype)
        kernels.call("cast", x, code(from_dtype), y, code(to_dtype), count)
        np.testing.assert_array_equal(y, expected[:count])


def test_cast_special_values(kernels):
    x = np.array([np.nan, np.inf, -np.inf, -0.0, 1e30, 65519, 65520, 2.0**-24, 2.0**-25, 3.1 * 2.0**-25], np.float32)
    y = np.zeros(x.size, np.float16)
    kernels.call("cast", x, DType.FLOAT32, y, DType.FLOAT16, x.size)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(y, x.astype(np.float16))
    truth = np.zeros(x.size, np.bool_)
    kernels.call("cast", x, DType.FLOAT32, truth, DType.BOOL, x.size)
    np.testing.assert_array_equal(truth, x != 0)


@pytest.mark.parametrize("sign", [1, -1])
def test_float64_is_rounded_once(kernels, sign):
    """A hair beyond the middle of two numbers, which rounding to float32 on the way would lose."""
    hair = 2.0**-40
    middles = np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8])
    x = sign * np.concatenate([middles - hair, middles, middles + hair])
    y = np.zeros(x.size, np.uint16)
    kernels.call("cast", x, DType.FLOAT64, y, DType.BFLOAT16, x.size)
    expected = sign * (1 + np.array([0, 1, 0, 2, 1, 2]) * 2.0**-7)
    np.testing.assert_array_equal(from_bfloat16(y), expected)

    half = np.zeros(1, np.float16)
    exact = np.array([sign * (1 + 2.0**-11 + hair)])
    kernels.call("cast", exact, DType.FLOAT64, half, DType.FLOAT16, 1)
    assert half[0] == exact.astype(np.float16)[0]


def test_bad_cast_arguments(library):
    x, y = np.ones(4, np.float32), np.full(4, np.nan, np.float32)
    for arguments, message in [
        ((x, 13, y, 0, 4), "no cast from dtype 13 to 0"),
        ((x, 0, y, -1, 4), "no cast from dtype 0 to -1"),
        ((x, 0, y, 0, -4), "-4 elements"),
        ((None, 0, y, 0, 4), "NULL"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call("cast", *arguments)
    assert np.isnan(y).all()


@pytest.mark.parametrize("dtype", EPSILON)
@pytest.mark.parametrize("count", [0, 1, 15, 33, 100_001])
@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_sum_rounds_once(kernels, dtype, count, num_parts):
    rng = np.random.default_rng(count)
    parts = [to_buffer(rng.standard_normal(count), dtype) for _ in range(num_parts)]
    addresses = (ctypes.c_void_p * num_parts)(*(part.ctypes.data for part in parts))
    expected = np.sum([from_buffer(part, dtype) for part in parts], axis=0)
    largest = np.sum([np.abs(from_buffer(part, dtype)) for part in parts], axis=0)
    kernels.call("sum", addresses, num_parts, parts[-1], count, code(dtype))  # onto a part
    error = np.abs(from_buffer(parts[-1], dtype) - expected)
    assert (error <= EPSILON[dtype] / 2 * np.abs(expected) + num_parts * EPSILON["float32"] * largest).all()


def test_bad_sum_arguments(library):
    x = np.ones(4, np.float32)
    part, none = (ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_void_p * 1)()
    for arguments, message in [
        ((part, 1, x, 4, DType.INT32), "dtype must be"),
        ((part, 0, x, 4, DType.FLOAT32), "0 parts"),
        ((part, 1, x, -4, DType.FLOAT32), "-4 elements"),
        ((part, 1, None, 4, DType.FLOAT32), "NULL"),
        ((none, 1, x, 4, DType.FLOAT32), "part 0 is NULL"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call("sum", *arguments)
