import numpy as np
import pytest
from buffers import DTYPES, empty_buffer, from_buffer, random_buffer
from test_matmul import error_bound

from mindgen.errors import KernelError

# How many rows each slot has.
GROUPS = {
    "identical": [40],
    "distinct": [1] * 12,
    "uniform": [6, 6, 6, 6],
    "large": [20, 20, 17],
    "skewed": [1, 50, 2, 1, 9],
    "empty": [0, 3, 0, 0, 20, 1, 0],
    "none": [0, 0],
}

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def check(library, dtype, sizes, K, N, *, transpose_w=False, rows_after=0):
    rng = np.random.default_rng([K, N, *sizes])
    ends = np.cumsum(sizes, dtype=np.int64)
    T, E = int(ends[-1]) + rows_after, len(sizes)
    x = random_buffer(rng, (T, K), dtype)
    w = random_buffer(rng, (E, N, K), dtype)
    y = empty_buffer((T, N), dtype)
    w_stored = w if transpose_w else np.ascontiguousarray(w.swapaxes(1, 2))
    library.call("grouped_matmul", x, w_stored, ends, y, T, E, K, N, transpose_w, DTYPES[dtype])

    x, w, result = from_buffer(x, dtype), from_buffer(w, dtype), from_buffer(y, dtype)
    for slot, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        rows = slice(end - size, end)
        expected = x[rows] @ w[slot].T
        error = np.abs(result[rows] - expected)
        assert np.all(error <= error_bound(x[rows], w[slot], None, expected, dtype)), f"slot {slot}"
    assert np.array_equal(result[ends[-1] :], np.zeros((rows_after, N)))
    return y


@dtypes
@pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("K, N", [(200, 4), (200, 8), (131, 16), (200, 64), (4, 200), (8, 131), (16, 200), (64, 200)])
def test_low_rank_shapes(kernels, dtype, sizes, K, N):
    check(kernels, dtype, sizes, K, N, rows_after=2)


@dtypes
@pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("K, N", [(131, 16), (16, 131), (1, 1)])
def test_transposed_weights(kernels, dtype, sizes, K, N):
    check(kernels, dtype, sizes, K, N, transpose_w=True, rows_after=1)


@dtypes
@pytest.mark.parametrize("sizes", [GROUPS["skewed"], GROUPS["large"]])
@pytest.mark.parametrize("transpose_w", [False, True])
def test_result_is_the_same_for_any_number_of_threads(kernels, dtype, sizes, transpose_w):
    results = []
    for threads in (1, 2, 3):
        kernels.num_threads = threads
        results.append(check(kernels, dtype, sizes, 300, 70, transpose_w=transpose_w))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_no_slots_leaves_zeros(kernels):
    y = empty_buffer((3, 4), "float32")
    kernels.call("grouped_matmul", np.ones((3, 2), np.float32), None, None, y, 3, 0, 2, 4, False, DTYPES["float32"])
    assert np.array_equal(y, np.zeros((3, 4)))


@pytest.mark.parametrize(
    "ends, message",
    [
        ([2, 1], r"group_ends\[1\] is 1, not within 2..3"),
        ([2, 4], r"group_ends\[1\] is 4, not within 2..3"),
        ([-1, 2], r"group_ends\[0\] is -1, not within 0..3"),
    ],
)
def test_bad_group_ends(kernels, ends, message):
    x, y = np.ones((3, 2), np.float32), empty_buffer((3, 4), "float32")
    w = np.ones((2, 2, 4), np.float32)
    with pytest.raises(KernelError, match=f"^grouped_matmul: {message}"):
        kernels.call("grouped_matmul", x, w, np.array(ends), y, 3, 2, 2, 4, False, DTYPES["float32"])


BAD_CALLS = [
    ((1, 1, 1, 1, False, 4), "dtype must be float32, bfloat16 or float16"),
    ((1, 1, -1, 1, False, 0), "negative size: T 1, E 1, K -1, N 1"),
    ((1, 1, 1, 1, False, 0), "x, w, group_ends or y is NULL"),
]


@pytest.mark.parametrize("arguments, message", BAD_CALLS)
def test_bad_arguments(kernels, arguments, message):
    with pytest.raises(KernelError, match=f"^grouped_matmul: {message}"):
        kernels.call("grouped_matmul", None, None, None, None, *arguments)
