"""Adapters as Punica measures them: dtypes, ranks, popularities and batch sizes, each row by itself in float32."""

import functools
import math

import numpy as np
import pytest
from buffers import DTYPES, EPSILON, SMALLEST, empty_buffer, from_buffer, lora_levels, random_buffer

BATCH_SIZES = [1, 2, 7, 16, 33, 64, 101, 133]
K, N = 96, 80


def skewed(batch_size: int) -> list[int]:
    """Each adapter has a third of the rows that those before it have left."""
    sizes: list[int] = []
    while left := batch_size - sum(sizes):
        sizes.append(math.ceil(left / 3))
    return sizes


def uniform(batch_size: int) -> list[int]:
    num_adapters = math.ceil(math.sqrt(batch_size))
    return [len(part) for part in np.array_split(np.arange(batch_size), num_adapters)]


POPULARITIES = {
    "identical": lambda batch_size: [batch_size],
    "distinct": lambda batch_size: [1] * batch_size,
    "uniform": uniform,
    "skewed": skewed,
}


@functools.cache
def inputs(dtype: str, rank: int) -> tuple[np.ndarray, ...]:
    """x (T, K), a (T, K, rank), b (T, rank, N) and y (T, N) for up to T rows and adapters."""
    rng, rows = np.random.default_rng(rank), max(BATCH_SIZES)
    x = random_buffer(rng, (rows, K), dtype)
    a = random_buffer(rng, (rows, K, rank), dtype, K**-0.5)
    return x, a, random_buffer(rng, (rows, rank, N), dtype), random_buffer(rng, (rows, N), dtype)


def to_float32(buffer: np.ndarray, dtype: str) -> np.ndarray:
    return from_buffer(buffer, dtype).astype(np.float32)


def multiply_rows(x, w, slots):
    """x (T, D) @ w (E, D, C) of each row's slot, in float32: no product of matrices, no groups."""
    return np.einsum("td,tdc->tc", x, w[slots])


def summation_error(depth: int, magnitude):
    """Of two float32 sums, the kernel's and ours, the magnitudes of whose terms add up to magnitude."""
    return 2 * (depth + 2) * EPSILON["float32"] * magnitude


def assert_close(result, expected, error, dtype):
    rounding = EPSILON[dtype] / 2 * (np.abs(expected) + error) + SMALLEST[dtype]
    assert np.all(np.abs(from_buffer(result, dtype) - expected) <= error + rounding)


@pytest.mark.parametrize("popularity", POPULARITIES)
@pytest.mark.parametrize("rank", [4, 8, 16, 32, 64, 128])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_batch_size(kernels, dtype, rank, popularity):
    x, a, b, before = inputs(dtype, rank)
    rows, down, up, added_to = (to_float32(each, dtype) for each in (x, a, b, before))
    for T in BATCH_SIZES:
        sizes = POPULARITIES[popularity](T)
        ends, E = np.cumsum(sizes, dtype=np.int64), len(sizes)
        slots = np.repeat(np.arange(E), sizes)

        low = empty_buffer((T, rank), dtype)
        kernels.call("grouped_matmul", x, a, ends, low, T, E, K, rank, False, DTYPES[dtype])
        expected = multiply_rows(rows[:T], down, slots)
        low_error = summation_error(K, multiply_rows(np.abs(rows[:T]), np.abs(down), slots))
        assert_close(low, expected, low_error, dtype)

        y = before[:T].copy()
        levels, kept = lora_levels([(a[:E], [b[:E]], ends)])
        kernels.call("add_lora", x, K, levels, 1, np.array([N]), 1, y, T, K, DTYPES[dtype], DTYPES[dtype])
        assert kept
        magnitude = multiply_rows(np.abs(expected), np.abs(up), slots) + np.abs(added_to[:T])
        error = summation_error(rank, magnitude) + multiply_rows(low_error, np.abs(up), slots)
        assert_close(y, added_to[:T] + multiply_rows(expected, up, slots), error, dtype)

        y = empty_buffer((T, N), dtype)
        kernels.call("grouped_matmul", low, b, ends, y, T, E, rank, N, False, DTYPES[dtype])
        low = to_float32(low, dtype)
        error = summation_error(rank, multiply_rows(np.abs(low), np.abs(up), slots))
        assert_close(y, multiply_rows(low, up, slots), error, dtype)
