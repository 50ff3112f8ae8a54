import ctypes

import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, random_buffer

from mindgen.errors import KernelError

# How many rows each slot has.
GROUPS = {
    "one": [3],
    "one_large": [40],
    "distinct": [1] * 9,
    "uniform": [4, 4, 4, 4],
    "skewed": [1, 50, 2, 1, 9],
    "empty": [0, 3, 0, 0, 20, 1, 0],
    "none": [0, 0],
    "base_only": [5, 0, 0],
}
SIZES = {1: [70], 2: [131, 131], 3: [96, 17, 1]}

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def add_lora(library, dtype, x, x_step, a, b, ends, y, K, rank):
    pointers = (ctypes.c_void_p * len(b))(*(part.ctypes.data for part in b))
    sizes = np.array([part.shape[2] for part in b], np.int64)
    T, E = len(x), len(ends)
    library.call("add_lora", x, x_step, a, pointers, sizes, len(b), ends, y, T, E, K, rank, DTYPES[dtype])


def random_adapters(rng, dtype, E, sizes, K, rank):
    a = random_buffer(rng, (E, K, len(sizes) * rank), dtype, K**-0.5)
    return a, [random_buffer(rng, (E, rank, size), dtype) for size in sizes]


def check(library, dtype, rows, sizes, K, rank, *, rows_after=0, gap=0):
    rng = np.random.default_rng([K, rank, *rows])
    ends = np.cumsum(rows, dtype=np.int64)
    T, E = int(ends[-1]) + rows_after, len(rows)
    x = random_buffer(rng, (T, K + gap), dtype)
    x[:, K:] = empty_buffer((T, gap), dtype)
    a, b = random_adapters(rng, dtype, E, sizes, K, rank)
    before = random_buffer(rng, (T, sum(sizes)), dtype)
    y = before.copy()
    add_lora(library, dtype, x, K + gap, a, b, ends, y, K, rank)

    x, a, result, expected = (from_buffer(buffer, dtype) for buffer in (x[:, :K], a, y, before))
    b = [from_buffer(part, dtype) for part in b]
    bound = np.zeros_like(expected)
    for slot in range(E):
        of_slot = slice(ends[slot] - rows[slot], ends[slot])
        low, low_magnitude = x[of_slot] @ a[slot], np.abs(x[of_slot]) @ np.abs(a[slot])
        column = 0
        for part, weights in enumerate(b):
            columns, ranks = slice(column, column + sizes[part]), slice(part * rank, (part + 1) * rank)
            column = columns.stop
            magnitude = low_magnitude[:, ranks] @ np.abs(weights[slot]) + np.abs(expected[of_slot, columns])
            expected[of_slot, columns] += low[:, ranks] @ weights[slot]
            # K roundings in float32 of each low-rank element, as many as the rank of their sum, one to the dtype.
            summation = (K + rank + 2) * EPSILON["float32"] * magnitude
            rounding = EPSILON[dtype] / 2 * (np.abs(expected[of_slot, columns]) + summation)
            bound[of_slot, columns] = summation + rounding + SMALLEST[dtype]
    error = np.abs(result - expected)
    assert np.all(error <= bound), f"largest error {np.nanmax(error[error > bound])}"  # 0 where nothing is added
    return y


@dtypes
@pytest.mark.parametrize("rows", GROUPS.values(), ids=GROUPS.keys())
@pytest.mark.parametrize("parts", SIZES)
def test_groups(kernels, dtype, rows, parts):
    check(kernels, dtype, rows, SIZES[parts], 129, 8, rows_after=2, gap=3)


@dtypes
@pytest.mark.parametrize("rank", [1, 4, 8, 16, 33, 64, 128])
@pytest.mark.parametrize("parts", SIZES)
def test_ranks(kernels, dtype, rank, parts):
    check(kernels, dtype, [2, 5, 30, 1], SIZES[parts], 160, rank)


@dtypes
@pytest.mark.parametrize("K, size", [(1, 1), (896, 1152), (1030, 33), (64, 4096)])
def test_sizes(kernels, dtype, K, size):
    check(kernels, dtype, [3, 1, 20], [size, size], K, 8)


@dtypes
@pytest.mark.parametrize("rows", [GROUPS["skewed"], GROUPS["uniform"]])
def test_result_is_the_same_for_any_number_of_threads(kernels, dtype, rows):
    results = []
    for threads in (1, 2, 3):
        kernels.num_threads = threads
        results.append(check(kernels, dtype, rows, [700, 1300], 300, 16))
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


@dtypes
def test_slot_of_zeros_adds_nothing(kernels, dtype):
    rng = np.random.default_rng(0)
    x, y = random_buffer(rng, (10, 40), dtype), random_buffer(rng, (10, 70), dtype)
    a, b = random_adapters(rng, dtype, 3, [30, 40], 40, 8)
    a[1] = 0
    before = y.copy()
    add_lora(kernels, dtype, x, 40, a, b, np.array([2, 7, 10], np.int64), y, 40, 8)
    assert np.array_equal(y[2:7], before[2:7])
    assert not np.array_equal(y[:2], before[:2]) and not np.array_equal(y[7:], before[7:])


def test_nothing_to_do(kernels):
    rng = np.random.default_rng(0)
    y = random_buffer(rng, (3, 4), "float32")
    before = y.copy()
    ends = np.array([3], np.int64)
    for T, E, K, rank, num_parts in [
        (0, 1, 1, 1, 1),
        (3, 0, 1, 1, 1),
        (3, 1, 0, 1, 1),
        (3, 1, 1, 0, 1),
        (3, 1, 1, 1, 0),
    ]:
        pointers = (None, None, None, None, num_parts, ends)
        kernels.call("add_lora", pointers[0], K, *pointers[1:], y, T, E, K, rank, DTYPES["float32"])
    assert np.array_equal(y, before)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": 4}, "dtype must be float32, bfloat16 or float16"),
        ({"rank": -1}, "negative size: T 3, E 1, K 2, rank -1, num_parts 1"),
        ({"x_step": 1}, "x_step is 1, less than K 2"),
        ({"x": None}, "x, a, b, sizes, group_ends or y is NULL"),
        ({"sizes": np.array([-4])}, r"sizes\[0\] is negative: -4"),
        ({"b": (ctypes.c_void_p * 1)(None)}, r"b\[0\] is NULL"),
        ({"group_ends": np.array([4])}, r"group_ends\[0\] is 4, not within 0..3"),
    ],
)
def test_bad_arguments(kernels, changes, message):
    weights = np.zeros(8, np.float32)
    arguments = {
        "x": np.zeros((3, 2), np.float32),
        "x_step": 2,
        "a": weights,
        "b": (ctypes.c_void_p * 1)(weights.ctypes.data),
        "sizes": np.array([4]),
        "num_parts": 1,
        "group_ends": np.array([3]),
        "y": np.zeros((3, 4), np.float32),
        "T": 3,
        "E": 1,
        "K": 2,
        "rank": 2,
        "dtype": DTYPES["float32"],
    }
    with pytest.raises(KernelError, match=f"^add_lora: {message}"):
        kernels.call("add_lora", *(arguments | changes).values())
