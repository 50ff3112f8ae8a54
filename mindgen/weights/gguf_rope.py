"""Rotary frequencies that are stretched one by one, of which files of GGUF have the factors as a tensor."""

import math
from typing import Any

import numpy as np

from mindgen.weights.model_config import RopeConfig

_KIND = "llama3"
# Of Llama 3.1 and of Llama 3.2, as their config.json have it.
_KNOWN = [
    RopeConfig(500000.0, _KIND, factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192)
    for factor in (8.0, 32.0)
]


def rope_factors(rope: RopeConfig, head_size: int) -> np.ndarray | None:
    """By which each of the head_size / 2 frequencies is divided, in float32; None where one number does for all.

    Those of Llama 3.1 are what its rule (transformers' _compute_llama3_parameters) makes of each frequency, computed in
    float32 as llama.cpp's converter does.
    """
    if rope.kind == "factors":
        return np.array(rope.factors, np.float32)
    if rope.kind != _KIND:
        return None
    one, low, high = np.float32(1), np.float32(rope.low_freq_factor), np.float32(rope.high_freq_factor)
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    wavelengths = np.float32(2 * math.pi) / (one / np.float32(rope.theta) ** exponents)
    turns = np.float32(rope.original_max_position) / wavelengths
    keep = (turns - low) / (high - low)
    between = one / ((one - keep) / np.float32(rope.factor) + keep)
    return np.where(turns > high, one, np.where(turns < low, np.float32(rope.factor), between)).astype(np.float32)


def scaling_of_factors(factors: np.ndarray, theta: float) -> dict[str, Any]:
    """rope_scaling of a config.json: a rule that is known to give these factors, or else the factors themselves."""
    for rope in _KNOWN:
        known = rope_factors(rope, 2 * factors.size)
        if rope.theta == theta and known is not None and np.array_equal(known, factors):
            return {
                "rope_type": _KIND,
                "factor": rope.factor,
                "low_freq_factor": rope.low_freq_factor,
                "high_freq_factor": rope.high_freq_factor,
                "original_max_position_embeddings": rope.original_max_position,
            }
    return {"rope_type": "factors", "factors": factors.tolist()}
