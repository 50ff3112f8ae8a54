"""Causal attention in float64, and how far the kernels may be from it."""

import numpy as np
from buffers import EPSILON, SMALLEST, from_buffer


def causal_attention(query, key, value, scale, rounds_weights=False):
    """The last len(query) tokens over all: query (q, Hq, D), key and value (c, Hkv, D).

    Returns y (q, Hq, D) and the error of a float32 computation of it (q, Hq, D), whose weights may be rounded to
    bfloat16.
    """
    num_queries, num_keys, group = len(query), len(key), query.shape[1] // key.shape[1]
    key, value = np.repeat(key, group, axis=1), np.repeat(value, group, axis=1)
    scores = scale * np.einsum("qhd,khd->hqk", query, key)
    magnitudes = abs(scale) * np.einsum("qhd,khd->hqk", abs(query), abs(key))
    hidden = np.arange(num_keys) > np.arange(num_keys - num_queries, num_keys)[:, None]
    scores[:, hidden] = -np.inf
    magnitudes[:, hidden] = 0
    probabilities = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    y = np.einsum("hqk,khd->qhd", probabilities, value)
    # An error of a score is a relative error of its probability, in numerator and denominator.
    score_error = (query.shape[-1] + 4) * magnitudes.max(axis=-1).T[:, :, None]
    sum_error = num_keys + 16
    weighted = np.einsum("hqk,khd->qhd", probabilities, abs(value))
    error = EPSILON["float32"] * (2 * score_error + sum_error)
    if rounds_weights:
        error += EPSILON["bfloat16"] / 2
    return y, error * weighted


def assert_close(actual, expected, computation_error, dtype):
    """Within the computation's error and the rounding to dtype."""
    error = abs(from_buffer(actual, dtype) - expected)
    bound = computation_error + EPSILON[dtype] / 2 * (abs(expected) + computation_error) + SMALLEST[dtype]
    assert (error <= bound).all(), f"off by up to {np.nanmax(error / bound):.1f} times the bound"
