import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, random_buffer, to_buffer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindgen.errors import KernelError

FLOAT32_EPSILON = EPSILON["float32"]


def error_bound(x, w, bias, result, dtype: str):
    """Half a unit in the last place of the dtype, and K roundings of float32 sums."""
    terms = w.shape[-1] + 1
    magnitude = np.abs(x) @ np.abs(w).swapaxes(-1, -2) + (0 if bias is None else np.abs(bias))
    summation = terms * FLOAT32_EPSILON * magnitude
    # bfloat16 products flush what is below the smallest normal float32.
    return EPSILON[dtype] / 2 * (np.abs(result) + summation) + summation + SMALLEST[dtype] + terms * 2.0**-126


def run(library, x, w, bias, dtype, batch, M, N, K, transpose_x=False, transpose_w=True):
    y = empty_buffer((batch, M, N), dtype)
    library.call("matmul", x, w, bias, y, batch, M, N, K, transpose_x, transpose_w, DTYPES[dtype])
    return y


def check(library, dtype, M, N, K, *, batch=1, transpose_x=False, transpose_w=True, with_bias=True, scale=1.0):
    rng = np.random.default_rng([M, N, K, batch])
    x = random_buffer(rng, (batch, M, K), dtype, scale)
    w = random_buffer(rng, (batch, N, K), dtype)
    bias = random_buffer(rng, N, dtype) if with_bias else None
    x_stored = np.ascontiguousarray(x.swapaxes(1, 2)) if transpose_x else x
    w_stored = w if transpose_w else np.ascontiguousarray(w.swapaxes(1, 2))
    y = run(library, x_stored, w_stored, bias, dtype, batch, M, N, K, transpose_x, transpose_w)

    x, w = from_buffer(x, dtype), from_buffer(w, dtype)
    bias = from_buffer(bias, dtype) if with_bias else None
    expected = x @ w.swapaxes(1, 2) + (bias if with_bias else 0)
    error = np.abs(from_buffer(y, dtype) - expected)
    bound = error_bound(x, w, bias, expected, dtype)
    assert np.all(error <= bound), f"largest error {np.nanmax(error / bound)} times its bound"
    return y


dtypes = pytest.mark.parametrize("dtype", DTYPES)


@dtypes
@pytest.mark.parametrize("M", [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 33, 48, 49, 64, 97, 133])
def test_numbers_of_rows(kernels, dtype, M):
    check(kernels, dtype, M, 37, 75)
    check(kernels, dtype, M, 40, 64, with_bias=False)


@dtypes
@pytest.mark.parametrize("N", [1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 127, 129, 257])
@pytest.mark.parametrize("M", [1, 20])
def test_numbers_of_columns(kernels, dtype, M, N):
    check(kernels, dtype, M, N, 70)


@dtypes
@pytest.mark.parametrize("K", [0, 1, 2, 3, 15, 16, 17, 31, 32, 33, 63, 65, 127, 129, 255, 257, 511, 513, 1023])
@pytest.mark.parametrize("M", [1, 6, 12, 20, 60])
def test_depths(kernels, dtype, M, K):
    check(kernels, dtype, M, 19, K)


@dtypes
@pytest.mark.parametrize("M", [1, 3, 16, 33, 70])
def test_large_depth(kernels, dtype, M):
    check(kernels, dtype, M, 24, 4999)
    check(kernels, dtype, M, 24, 4864)


@dtypes
def test_several_chunks_of_rows(kernels, dtype):
    check(kernels, dtype, 1043, 40, 66)


@dtypes
@pytest.mark.parametrize("transpose_x", [False, True])
@pytest.mark.parametrize("transpose_w", [False, True])
@pytest.mark.parametrize("M, N, K", [(1, 1, 1), (1, 100, 31), (5, 70, 64), (9, 33, 35), (50, 7, 300), (130, 65, 97)])
def test_transposes(kernels, dtype, transpose_x, transpose_w, M, N, K):
    check(kernels, dtype, M, N, K, transpose_x=transpose_x, transpose_w=transpose_w)
    check(kernels, dtype, M, N, K, transpose_x=transpose_x, transpose_w=transpose_w, batch=3, with_bias=False)


@dtypes
@pytest.mark.parametrize("batch", [2, 5])
@pytest.mark.parametrize("M", [1, 40])
def test_batches(kernels, dtype, batch, M):
    check(kernels, dtype, M, 33, 64, batch=batch)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(list(DTYPES)),
    M=st.integers(1, 133),
    N=st.integers(1, 150),
    K=st.integers(1, 600),
    transpose_x=st.booleans(),
    transpose_w=st.booleans(),
    with_bias=st.booleans(),
)
def test_any_shape(kernels, dtype, M, N, K, transpose_x, transpose_w, with_bias):
    check(kernels, dtype, M, N, K, transpose_x=transpose_x, transpose_w=transpose_w, with_bias=with_bias)


@dtypes
@pytest.mark.parametrize("M", [1, 8, 40, 150])
@pytest.mark.parametrize("N, transpose_w", [(300, True), (300, False), (16, True)])
def test_result_is_the_same_for_any_number_of_threads(kernels, dtype, M, N, transpose_w):
    results = []
    for threads in (1, 2, 3):
        kernels.num_threads = threads
        results.append(check(kernels, dtype, M, N, 555, transpose_w=transpose_w))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@dtypes
@pytest.mark.parametrize("transpose_w", [False, True])
@pytest.mark.parametrize("N, K", [(50, 130), (300, 1100), (16, 576)])
def test_row_does_not_depend_on_the_others(kernels, dtype, N, K, transpose_w):
    """Not by a bit: the order of a row's sums is the same for any number of rows, wherever it stands among them."""
    rng = np.random.default_rng([N, K])
    w = random_buffer(rng, (N, K) if transpose_w else (K, N), dtype)
    x = random_buffer(rng, (150, K), dtype)

    def multiply(rows):
        return run(kernels, rows, w, None, dtype, 1, len(rows), N, K, transpose_w=transpose_w)[0]

    together = multiply(x)
    for first, last in [(0, 1), (7, 8), (149, 150), (3, 5), (10, 17), (64, 97), (1, 130)]:
        assert np.array_equal(together[first:last], multiply(x[first:last])), (first, last)


@dtypes
@pytest.mark.parametrize("M", [1, 4, 33])
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_infinity_and_nan_spread_to_their_row_only(kernels, dtype, M, value):
    x, w = np.ones((M, 35), np.float32), np.ones((18, 35), np.float32)
    x[M // 2, 34] = value
    y = from_buffer(run(kernels, to_buffer(x, dtype), to_buffer(w, dtype), None, dtype, 1, M, 18, 35), dtype)[0]
    np.testing.assert_array_equal(y[M // 2], np.full(18, value))
    np.testing.assert_array_equal(np.delete(y, M // 2, axis=0), np.full((M - 1, 18), 35.0))


@dtypes
def test_products_overflow_to_infinity(kernels, dtype):
    largest = {"float32": 3e38, "bfloat16": 3e38, "float16": 6e4}[dtype]
    x = to_buffer(np.full((1, 2), largest), dtype)
    y = run(kernels, x, x, None, dtype, 1, 1, 1, 2)
    assert from_buffer(y, dtype)[0, 0, 0] == np.inf


def test_nothing_to_do(kernels):
    for sizes in [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1)]:
        kernels.call("matmul", None, None, None, None, *sizes, False, True, DTYPES["float32"])


BAD_CALLS = [
    ((1, 1, 1, 1, False, True, 4), "dtype must be float32, bfloat16 or float16"),
    ((1, -1, 1, 1, False, True, 0), "negative size: batch 1, M -1, N 1, K 1"),
    ((-1, 1, 1, 1, False, True, 0), "negative size: batch -1"),
    ((1, 1, 1, 1, False, True, 0), "x, w or y is NULL"),
]


@pytest.mark.parametrize("arguments, message", BAD_CALLS)
def test_bad_arguments(kernels, arguments, message):
    with pytest.raises(KernelError, match=f"^matmul: .*{message}"):
        kernels.call("matmul", None, None, None, None, *arguments)
