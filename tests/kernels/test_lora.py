from itertools import pairwise

import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, lora_levels, random_buffer, to_buffer

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


def add_lora(library, dtype, x, x_step, levels, ends, y, K, y_dtype=None):
    """levels: (a, parts of b) of each."""
    sizes = np.array([part.shape[2] for part in levels[0][1]], np.int64)
    records, kept = lora_levels([(a, b, ends[: len(a)].copy()) for a, b in levels])
    arguments = (x, x_step, records, len(levels), sizes, len(sizes), y, len(x), K)
    library.call("add_lora", *arguments, DTYPES[dtype], DTYPES[y_dtype or dtype])
    assert kept


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
    add_lora(library, dtype, x, K + gap, [(a, b)], ends, y, K)

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
    add_lora(kernels, dtype, x, 40, [(a, b)], np.array([2, 7, 10], np.int64), y, 40)
    assert np.array_equal(y[2:7], before[2:7])
    assert not np.array_equal(y[:2], before[:2]) and not np.array_equal(y[7:], before[7:])


@dtypes
@pytest.mark.parametrize("rows", [[1] * 5, [9, 2, 40, 3, 1]], ids=["decode", "prompts"])
def test_sums_do_not_depend_on_where_levels_end(kernels, dtype, rows):
    """Slots of rank 40, 40, 24, 8 and 8: in one level with zeros, in levels of 8, and as they would lie."""
    rng = np.random.default_rng(1)
    K, sizes, ranks = 160, SIZES[3], [40, 40, 24, 8, 8]
    ends = np.cumsum(rows, dtype=np.int64)
    x, before = random_buffer(rng, (ends[-1], K), dtype), random_buffer(rng, (ends[-1], sum(sizes)), dtype)
    a, b = random_adapters(rng, dtype, len(ranks), sizes, K, 40)
    a = a.reshape(len(ranks), K, len(sizes), 40)
    for slot, rank in enumerate(ranks):
        a[slot, :, :, rank:] = 0

    def result(bounds: list[int], reaches: bool, y_dtype: str = dtype) -> np.ndarray:
        levels = []
        for first, end in pairwise(bounds):
            slots = sum(rank > first for rank in ranks) if reaches else len(ranks)
            level_a = np.ascontiguousarray(a[:slots, :, :, first:end]).reshape(slots, K, -1)
            levels.append((level_a, [np.ascontiguousarray(part[:slots, first:end]) for part in b]))
        y = before.copy() if y_dtype == dtype else from_buffer(before, dtype).astype(np.float32)
        add_lora(kernels, dtype, x, K, levels, ends, y, K, y_dtype)
        return y

    whole = result([0, 40], reaches=False)
    assert not np.array_equal(whole, before)
    for bounds in ([0, 8, 16, 24, 32, 40], [0, 8, 24, 40], [0, 3, 40]):
        np.testing.assert_array_equal(result(bounds, reaches=True), whole)
    wide = result([0, 8, 24, 40], reaches=True, y_dtype="float32")
    np.testing.assert_array_equal(wide, result([0, 40], reaches=False, y_dtype="float32"))
    np.testing.assert_array_equal(to_buffer(wide, dtype), whole)


def test_nothing_to_do(kernels):
    y = np.ones((3, 4), np.float32)
    weights, dtype = np.ones(16, np.float32), DTYPES["float32"]
    sizes = np.array([4])
    for T, E, K, rank, num_parts, num_levels in [
        (0, 1, 1, 1, 1, 1),
        (3, 0, 1, 1, 1, 1),
        (3, 1, 0, 1, 1, 1),
        (3, 1, 1, 0, 1, 1),
        (3, 1, 1, 1, 0, 1),
        (3, 1, 1, 1, 1, 0),
    ]:
        shape = (E, K, num_parts * rank)
        records, kept = lora_levels(
            [(weights[: E * K * rank].reshape(shape) if num_parts else weights, [weights], np.array([3]))]
        )
        records["E"], records["rank"] = E, rank
        kernels.call("add_lora", weights, K, records, num_levels, sizes, num_parts, y, T, K, dtype, dtype)
        assert kept
    assert np.array_equal(y, np.ones((3, 4)))


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dtype": 4}, "dtype must be float32, bfloat16 or float16"),
        ({"y_dtype": DTYPES["bfloat16"]}, "y_dtype must be float32 or that of x"),
        ({"rank": -1}, "level 0 has E 1 and rank -1"),
        ({"K": -1}, "negative size: T 3, K -1, num_parts 1"),
        ({"num_levels": 33}, r"33 levels, not 0..32"),
        ({"x_step": 1}, "x_step is 1, less than K 2"),
        ({"x": None}, "x, levels, sizes or y is NULL"),
        ({"sizes": np.array([-4])}, r"sizes\[0\] is negative: -4"),
        ({"a": 0}, "a, b or group_ends of level 0 is NULL"),
        ({"part": 0}, r"b\[0\] of level 0 is NULL"),
        ({"group_ends": np.array([4])}, r"group_ends\[0\] is 4, not within 0..3"),
        ({"second_ends": np.array([2])}, "the group_ends of level 1 are others than those of level 0"),
        ({"second_E": 2}, "level 1 has E 2 and rank 2"),
    ],
)
def test_bad_arguments(kernels, changes, message):
    weights = np.zeros((1, 2, 2), np.float32)
    ends = changes.get("group_ends", np.array([3]))
    both = [(weights, [weights], ends), (weights, [weights], changes.get("second_ends", ends))]
    records, kept = lora_levels(both)
    if "part" in changes:
        kept[0][0] = None
    for field in ("a", "rank"):
        records[field][0] = changes.get(field, records[field][0])
    records["E"][1] = changes.get("second_E", 1)
    arguments = {
        "x": np.zeros((3, 2), np.float32),
        "x_step": 2,
        "levels": records,
        "num_levels": 2,
        "sizes": np.array([2]),
        "num_parts": 1,
        "y": np.zeros((3, 2), np.float32),
        "T": 3,
        "K": 2,
        "dtype": DTYPES["float32"],
        "y_dtype": DTYPES["float32"],
    }
    arguments |= {name: value for name, value in changes.items() if name in arguments}
    with pytest.raises(KernelError, match=f"^add_lora: {message}"):
        kernels.call("add_lora", *arguments.values())
