import numpy as np
import pytest
from buffers import DTYPES, EPSILON, empty_buffer, from_buffer, random_buffer
from test_matmul import error_bound

from mindgen.errors import KernelError

dtypes = pytest.mark.parametrize("dtype", DTYPES)
rows = pytest.mark.parametrize("M", [1, 2, 7, 16, 17, 40])
NARROW = 5  # elements between the rows of x, which nobody may read


def random_inputs(rng, M, N, K, dtype):
    """x with rows K + NARROW apart, and w."""
    x = random_buffer(rng, (M, K + NARROW), dtype)
    x[:, K:] = empty_buffer((M, NARROW), dtype)
    return x, random_buffer(rng, (N, K), dtype)


def values(dtype, *buffers):
    """As float64; None stays None."""
    return [None if buffer is None else from_buffer(buffer, dtype) for buffer in buffers]


def check_linear(library, dtype, M, N, K, *, with_bias, residual):
    """residual: None, "other" or "y", the output itself."""
    rng = np.random.default_rng([M, N, K])
    x, w = random_inputs(rng, M, N, K, dtype)
    bias = random_buffer(rng, N, dtype) if with_bias else None
    added = random_buffer(rng, (M, N), dtype, 8.0) if residual else None
    y = added.copy() if residual == "y" else empty_buffer((M, N), dtype)
    arguments = (x, K + NARROW, w, bias, y if residual == "y" else added, y, M, N, K, *[DTYPES[dtype]] * 3)
    library.call("linear", *arguments)

    x, w, bias, added = values(dtype, x[:, :K], w, bias, added)
    sums = x @ w.T + (0 if bias is None else bias)
    bound = error_bound(x, w, bias, sums, dtype)
    expected = sums
    if added is not None:  # to the rounded sums
        expected = sums + added
        bound = bound + EPSILON[dtype] / 2 * (np.abs(expected) + bound) + 2 * EPSILON["float32"] * np.abs(expected)
    error = np.abs(from_buffer(y, dtype) - expected)
    assert np.all(error <= bound), f"largest error {np.nanmax(error / bound)} times its bound"


def swiglu_bound(gate, up, gate_error, up_error, dtype):
    """From the errors of gate and up: |silu'| <= 1.1, and silu itself has a few roundings of its own."""
    silu = gate / (1 + np.exp(-gate))
    silu_error = 1.1 * gate_error + 8 * EPSILON["float32"] * np.abs(silu)
    float_error = silu_error * (np.abs(up) + up_error) + np.abs(silu) * up_error
    return EPSILON[dtype] / 2 * (np.abs(silu * up) + float_error) + float_error + 2.0**-24 * (dtype == "float16")


def check_swiglu(library, dtype, M, N, K, *, with_bias):
    rng = np.random.default_rng([M, N, K])
    x, w = random_inputs(rng, M, 2 * N, K, dtype)
    x[:, :K] = random_buffer(rng, (M, K), dtype, 2 / np.sqrt(K))
    bias = random_buffer(rng, 2 * N, dtype) if with_bias else None
    y = empty_buffer((M, N), dtype)
    library.call("linear_swiglu", x, K + NARROW, w, bias, y, M, N, K, DTYPES[dtype], DTYPES[dtype])

    x, w, bias = values(dtype, x[:, :K], w, bias)
    sums = x @ w.T + (0 if bias is None else bias)
    sum_error = error_bound(x, w, bias, sums, dtype)  # both are rounded first
    gate, up = sums[:, :N], sums[:, N:]
    expected = gate / (1 + np.exp(-gate)) * up
    bound = swiglu_bound(gate, up, sum_error[:, :N], sum_error[:, N:], dtype)
    error = np.abs(from_buffer(y, dtype) - expected)
    assert np.all(error <= bound), f"largest error {np.nanmax(error / bound)} times its bound"


@dtypes
@rows
@pytest.mark.parametrize("N, K", [(37, 75), (64, 64), (130, 129), (1, 2)])
@pytest.mark.parametrize("residual", [None, "other", "y"])
@pytest.mark.parametrize("with_bias", [False, True])
def test_linear(kernels, dtype, M, N, K, with_bias, residual):
    check_linear(kernels, dtype, M, N, K, with_bias=with_bias, residual=residual)


@dtypes
@rows
@pytest.mark.parametrize("N, K", [(37, 75), (64, 64), (130, 129), (1, 2), (300, 33)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_swiglu(kernels, dtype, M, N, K, with_bias):
    check_swiglu(kernels, dtype, M, N, K, with_bias=with_bias)


@dtypes
@pytest.mark.parametrize("M", [1, 3, 16, 33])
def test_large_depth(kernels, dtype, M):
    check_linear(kernels, dtype, M, 24, 4864, with_bias=True, residual="y")
    check_swiglu(kernels, dtype, M, 24, 4864, with_bias=True)


@dtypes
def test_several_chunks_of_rows(kernels, dtype):
    check_linear(kernels, dtype, 1043, 40, 66, with_bias=True, residual="y")
    check_swiglu(kernels, dtype, 1043, 140, 66, with_bias=True)


@rows
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_as_they_are(kernels, dtype, M):
    rng = np.random.default_rng(M)
    N, K = 133, 200
    x, w, bias = (random_buffer(rng, shape, dtype) for shape in [(M, K), (N, K), N])
    y = np.full((M, N), np.nan, np.float32)
    kernels.call("linear", x, K, w, bias, None, y, M, N, K, DTYPES[dtype], DTYPES[dtype], DTYPES["float32"])
    x, w, bias = values(dtype, x, w, bias)
    expected = x @ w.T + bias
    assert np.all(np.abs(y - expected) <= error_bound(x, w, bias, expected, "float32"))


def test_other_dtypes_of_y_are_refused(kernels):
    with pytest.raises(KernelError, match="^linear: y_dtype must be dtype or float32"):
        kernels.call("linear", None, 1, None, None, None, None, 0, 0, 1, *[DTYPES["float16"]] * 2, DTYPES["bfloat16"])


@rows
def test_weights_of_half_the_size(kernels, M):
    rng = np.random.default_rng(M)
    N, K = 133, 1031
    x, bias = random_buffer(rng, (M, K), "float32"), random_buffer(rng, 2 * N, "float32")
    w = random_buffer(rng, (2 * N, K), "bfloat16")
    as_float32 = from_buffer(w, "bfloat16").astype(np.float32)
    products, gated = [], []
    float32 = DTYPES["float32"]
    for weights, w_dtype in ((w, DTYPES["bfloat16"]), (as_float32, float32)):
        products.append(empty_buffer((M, 2 * N), "float32"))
        kernels.call("linear", x, K, weights, bias, None, products[-1], M, 2 * N, K, float32, w_dtype, float32)
        gated.append(empty_buffer((M, N), "float32"))
        kernels.call("linear_swiglu", x, K, weights, bias, gated[-1], M, N, K, float32, w_dtype)
    assert np.array_equal(*products)
    assert np.array_equal(*gated)


@pytest.mark.parametrize("dtype, w_dtype", [("bfloat16", "float32"), ("float32", "float16"), ("float16", "bfloat16")])
def test_other_dtypes_of_weights_are_refused(kernels, dtype, w_dtype):
    dtypes = DTYPES[dtype], DTYPES[w_dtype]
    with pytest.raises(KernelError, match="^linear: w_dtype must be dtype, or bfloat16 where dtype is float32"):
        kernels.call("linear", None, 1, None, None, None, None, 0, 0, 1, *dtypes, DTYPES[dtype])
    with pytest.raises(KernelError, match="^linear_swiglu: w_dtype must be"):
        kernels.call("linear_swiglu", None, 1, None, None, None, 0, 0, 1, *dtypes)


@dtypes
@rows
def test_bare_linear_is_matmul(kernels, dtype, M):
    rng = np.random.default_rng(M)
    N, K = 133, 1031
    x, w, bias = (random_buffer(rng, shape, dtype) for shape in [(M, K), (N, K), N])
    product, y = empty_buffer((M, N), dtype), empty_buffer((M, N), dtype)
    kernels.call("matmul", x, w, bias, product, 1, M, N, K, False, True, DTYPES[dtype])
    kernels.call("linear", x, K, w, bias, None, y, M, N, K, *[DTYPES[dtype]] * 3)
    assert np.array_equal(product, y)


@dtypes
@pytest.mark.parametrize("M", [1, 8, 150])
def test_result_is_the_same_for_any_number_of_threads(kernels, dtype, M):
    rng = np.random.default_rng(M)
    N, K = 300, 555
    x, w, bias = (random_buffer(rng, shape, dtype) for shape in [(M, K), (2 * N, K), 2 * N])
    results = []
    for threads in (1, 2, 3):
        kernels.num_threads = threads
        results.append(empty_buffer((M, N), dtype))
        kernels.call("linear_swiglu", x, K, w, bias, results[-1], M, N, K, DTYPES[dtype], DTYPES[dtype])
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_nothing_to_do(kernels):
    for M, N in [(0, 1), (1, 0)]:
        kernels.call("linear", None, 1, None, None, None, None, M, N, 1, *[DTYPES["float32"]] * 3)
        kernels.call("linear_swiglu", None, 1, None, None, None, M, N, 1, *[DTYPES["float32"]] * 2)


@dtypes
def test_depth_of_nothing(kernels, dtype):
    y, residual = empty_buffer((3, 2), dtype), random_buffer(np.random.default_rng(0), (3, 2), dtype)
    kernels.call("linear", None, 0, None, None, residual, y, 3, 2, 0, *[DTYPES[dtype]] * 3)
    assert np.array_equal(y, residual)


BAD_CALLS = [
    ((1, 1, 1, 4), 1, "dtype must be float32, bfloat16 or float16"),
    ((1, -1, 1, 0), 1, "negative size: M 1, N -1, K 1"),
    ((1, 1, 2, 0), 1, "x_step is 1, less than K 2"),
    ((1, 1, 1, 0), 1, "x, w or y is NULL"),
]


@pytest.mark.parametrize("arguments, x_step, message", BAD_CALLS)
def test_bad_arguments(kernels, arguments, x_step, message):
    with pytest.raises(KernelError, match=f"^linear: {message}"):
        kernels.call("linear", None, x_step, None, None, None, None, *arguments, arguments[-1], DTYPES["float32"])
    with pytest.raises(KernelError, match=f"^linear_swiglu: {message}"):
        kernels.call("linear_swiglu", None, x_step, None, None, None, *arguments, arguments[-1])
