import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, random_buffer, to_buffer

from mindgen.errors import KernelError


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def assert_close(actual, expected, dtype, factor=1.0):
    """exp, a sum, a quotient and a product in float32, then the rounding; where exp overflows float32, silu is 0."""
    rtol = 8 * EPSILON["float32"] + EPSILON[dtype] / 2
    atol = SMALLEST[dtype] + abs(factor) * 89 / np.finfo(np.float32).max
    error = abs(from_buffer(actual, dtype) - expected)
    assert (error <= rtol * abs(expected) + atol).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 5, 16, 1000, 40001])
def test_silu(kernels, count, dtype):
    x = random_buffer(np.random.default_rng(0), count, dtype, scale=4)
    y = empty_buffer(count, dtype)
    kernels.call("silu", x, y, count, DTYPES[dtype])
    assert_close(y, silu(from_buffer(x, dtype)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_of_extremes(kernels, dtype):
    x = to_buffer([-60000, -110, -88.7, -20, -0.0, 0.0, 1e-6, 20, 88.7, 110, 60000, np.inf], dtype)
    y = empty_buffer(x.shape, dtype)
    kernels.call("silu", x, y, x.size, DTYPES[dtype])
    with np.errstate(over="ignore"):
        expected = silu(from_buffer(x, dtype)[:-1])
    assert_close(y[:-1], expected, dtype)
    assert from_buffer(y, dtype)[-1] == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("count", [1, 5, 16, 1000, 40001])
def test_gelu(kernels, count, dtype):
    x = random_buffer(np.random.default_rng(0), count, dtype, scale=2)
    results = []
    for num_threads in (1, 2):
        kernels.num_threads = num_threads
        results.append(empty_buffer(count, dtype))
        kernels.call("gelu", x, results[-1], count, DTYPES[dtype])
    np.testing.assert_array_equal(*results)
    values = from_buffer(x, dtype)
    # As x / (1 + exp(-2u)), for 1 + tanh(u) loses digits in float64 too; the error of exp is that of its argument.
    exponent = -2 * np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
    expected = values / (1 + np.exp(exponent))
    np.testing.assert_allclose(expected, gelu(values), rtol=1e-9, atol=1e-14)
    error = abs(from_buffer(results[0], dtype) - expected)
    rtol = (8 + 3 * abs(exponent)) * EPSILON["float32"] + EPSILON[dtype] / 2
    assert (error <= rtol * abs(expected) + SMALLEST[dtype]).all()
    in_place = x.copy()
    kernels.call("gelu", in_place, in_place, count, DTYPES[dtype])
    np.testing.assert_array_equal(in_place, results[0])


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_of_extremes(kernels, dtype):
    x = to_buffer([-60000, -20, -0.0, 0.0, 1e-6, 20, 60000, np.inf], dtype)
    y = empty_buffer(x.shape, dtype)
    kernels.call("gelu", x, y, x.size, DTYPES[dtype])
    with np.errstate(over="ignore"):
        expected = gelu(from_buffer(x, dtype)[:-1])
    np.testing.assert_allclose(
        from_buffer(y, dtype)[:-1], expected, rtol=8 * EPSILON["float32"] + EPSILON[dtype] / 2, atol=SMALLEST[dtype]
    )
    assert from_buffer(y, dtype)[-1] == np.inf


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (2, 64), (1, 4864), (50, 1001)])
def test_swiglu(kernels, shape, dtype):
    rows, width = shape
    x = random_buffer(np.random.default_rng(0), (rows, 2 * width), dtype, scale=3)
    results = []
    for num_threads in (1, 2):
        kernels.num_threads = num_threads
        results.append(empty_buffer(shape, dtype))
        kernels.call("swiglu", x, results[-1], rows, width, DTYPES[dtype])
    np.testing.assert_array_equal(*results)
    values = from_buffer(x, dtype)
    gate, up = values[:, :width], values[:, width:]
    assert_close(results[0], silu(gate) * up, dtype, up)


def test_nothing_to_do(library):
    library.call("silu", None, None, 0, DTYPES["float32"])
    library.call("gelu", None, None, 0, DTYPES["float32"])
    library.call("swiglu", None, None, 0, 8, DTYPES["float32"])


def test_bad_arguments(library):
    x, y = np.ones((2, 8), np.float32), empty_buffer((2, 4), "float32")
    for name, sizes, message in [
        ("silu", (-1, 0), "silu: -1 elements"),
        ("silu", (8, 3), "silu: dtype must be"),
        ("gelu", (-1, 0), "gelu: -1 elements"),
        ("gelu", (8, 3), "gelu: dtype must be"),
        ("swiglu", (2, 0, 0), "swiglu: 2 rows of 0 elements"),
        ("swiglu", (2, 4, 6), "swiglu: dtype must be"),
    ]:
        with pytest.raises(KernelError, match=message):
            library.call(name, x, y, *sizes)
    with pytest.raises(KernelError, match="NULL"):
        library.call("silu", x, None, 8, 0)
    assert np.isnan(y).all()
