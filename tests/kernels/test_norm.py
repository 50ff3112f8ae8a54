import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, random_buffer, to_buffer

from mindgen.errors import KernelError

SHAPES = [(1, 1), (3, 7), (2, 64), (5, 100), (1, 896), (40, 1030)]


def rms_norm(x, gamma, epsilon):
    rstd = 1 / np.sqrt((x**2).mean(axis=-1) + epsilon)
    return x * rstd[:, None] * gamma, rstd


def relative_error(width):
    """Of the float32 computation: the root of a sum of squares (in four lanes at least) and two products."""
    return (width / 16 + 8) * EPSILON["float32"]


def assert_norm(y, rstd, x, gamma, epsilon, dtype):
    expected, expected_rstd = rms_norm(from_buffer(x, dtype), from_buffer(gamma, dtype), epsilon)
    error = relative_error(x.shape[1])
    np.testing.assert_allclose(from_buffer(y, dtype), expected, rtol=error + EPSILON[dtype] / 2, atol=SMALLEST[dtype])
    np.testing.assert_allclose(rstd, expected_rstd, rtol=error)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_rms_norm(kernels, shape, dtype):
    rng = np.random.default_rng(0)
    x, gamma = random_buffer(rng, shape, dtype), random_buffer(rng, shape[1], dtype)
    y, rstd = empty_buffer(shape, dtype), np.empty(shape[0], np.float32)
    kernels.call("rms_norm", x, gamma, y, rstd, *shape, 1e-5, DTYPES[dtype])
    assert_norm(y, rstd, x, gamma, 1e-5, dtype)

    in_place = x.copy()
    kernels.call("rms_norm", in_place, gamma, in_place, None, *shape, 1e-5, DTYPES[dtype])
    np.testing.assert_array_equal(in_place, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_add_rms_norm(kernels, shape, dtype):
    rng = np.random.default_rng(0)
    x1, x2 = random_buffer(rng, shape, dtype), random_buffer(rng, shape, dtype)
    gamma = random_buffer(rng, shape[1], dtype)
    y, total, rstd = empty_buffer(shape, dtype), empty_buffer(shape, dtype), np.empty(shape[0], np.float32)
    kernels.call("add_rms_norm", x1, x2, gamma, y, rstd, total, *shape, 1e-6, DTYPES[dtype])
    expected = from_buffer(x1, dtype) + from_buffer(x2, dtype)
    np.testing.assert_allclose(from_buffer(total, dtype), expected, rtol=EPSILON[dtype] / 2, atol=SMALLEST[dtype])
    assert_norm(y, rstd, total, gamma, 1e-6, dtype)


@pytest.mark.parametrize("offset", [0, 30])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_layer_norm(kernels, shape, dtype, offset):
    rng = np.random.default_rng(0)
    x, width = to_buffer(rng.standard_normal(shape) + offset, dtype), shape[1]
    gamma, beta = random_buffer(rng, width, dtype), random_buffer(rng, width, dtype)
    y, (mean, rstd) = empty_buffer(shape, dtype), np.empty((2, shape[0]), np.float32)
    kernels.call("layer_norm", x, gamma, beta, y, mean, rstd, *shape, 1e-5, DTYPES[dtype])
    values, scale, shift = (from_buffer(each, dtype) for each in (x, gamma, beta))
    exact_mean, centred = values.mean(-1), values - values.mean(-1, keepdims=True)
    exact_rstd = 1 / np.sqrt((centred**2).mean(-1) + 1e-5)
    # The mean is off by the error of a sum; the centred values by that and by a rounding of their own.
    mean_error = relative_error(width) * abs(values).mean(-1)
    assert (abs(mean - exact_mean) <= mean_error).all()
    rstd_error = relative_error(width) * exact_rstd + mean_error**2 * exact_rstd**3
    assert (abs(rstd - exact_rstd) <= rstd_error).all()
    normed = centred * exact_rstd[:, None]
    computation_error = (
        (mean_error * exact_rstd)[:, None] + (relative_error(width) + rstd_error / exact_rstd)[:, None] * abs(normed)
    ) * abs(scale) + EPSILON["float32"] * (abs(shift) + abs(normed * scale))
    expected = normed * scale + shift
    bound = computation_error + EPSILON[dtype] / 2 * (abs(expected) + computation_error) + SMALLEST[dtype]
    assert (abs(from_buffer(y, dtype) - expected) <= bound).all()

    in_place = x.copy()
    kernels.call("layer_norm", in_place, gamma, beta, in_place, None, None, *shape, 1e-5, DTYPES[dtype])
    np.testing.assert_array_equal(in_place, y)


def test_epsilon_keeps_zeros_finite(kernels):
    x, gamma, y = np.zeros((2, 20), np.float32), np.ones(20, np.float32), empty_buffer((2, 20), "float32")
    kernels.call("rms_norm", x, gamma, y, None, 2, 20, 1e-6, DTYPES["float32"])
    np.testing.assert_array_equal(y, 0)
    kernels.call("layer_norm", x + 7, gamma, gamma, y, None, None, 2, 20, 1e-6, DTYPES["float32"])
    np.testing.assert_array_equal(y, 1)


def test_threads_do_not_change_a_bit(kernels):
    rng = np.random.default_rng(0)
    shape = (70, 1001)
    x, gamma, results = random_buffer(rng, shape, "bfloat16"), random_buffer(rng, shape[1], "bfloat16"), []
    for num_threads in (1, 2):
        kernels.num_threads = num_threads
        results.append(empty_buffer(shape, "bfloat16"))
        kernels.call("rms_norm", x, gamma, results[-1], None, *shape, 1e-6, DTYPES["bfloat16"])
    np.testing.assert_array_equal(*results)


def test_no_rows(library):
    library.call("rms_norm", None, None, None, None, 0, 64, 1e-6, DTYPES["float32"])
    library.call("add_rms_norm", None, None, None, None, None, None, 0, 64, 1e-6, DTYPES["float32"])
    library.call("layer_norm", None, None, None, None, None, None, 0, 64, 1e-6, DTYPES["float32"])


@pytest.mark.parametrize(
    "rows, width, dtype, message",
    [(2, 0, 0, "2 rows of 0 elements"), (-1, 4, 0, "-1 rows"), (2, 4, 4, "dtype must be")],
)
def test_bad_arguments(library, rows, width, dtype, message):
    x, y = np.ones((2, 4), np.float32), empty_buffer((2, 4), "float32")
    with pytest.raises(KernelError, match=message):
        library.call("rms_norm", x, x, y, None, rows, width, 1e-6, dtype)
    with pytest.raises(KernelError, match=message):
        library.call("add_rms_norm", x, x, x, y, None, y, rows, width, 1e-6, dtype)
    with pytest.raises(KernelError, match=message):
        library.call("layer_norm", x, x, x, y, None, None, rows, width, 1e-6, dtype)
    with pytest.raises(KernelError, match="NULL"):
        library.call("rms_norm", None, x, y, None, 2, 4, 1e-6, 0)
    assert np.isnan(y).all()
