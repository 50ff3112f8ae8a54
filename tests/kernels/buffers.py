"""Float buffers as the kernels take them: bfloat16 as uint16, the others as numpy has them."""

import ctypes
from typing import Any

import numpy as np

from mindgen.kernels.library import DType

DTYPES = {"float32": DType.FLOAT32, "bfloat16": DType.BFLOAT16, "float16": DType.FLOAT16}
# Distance between 1 and the next number.
EPSILON = {"float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
# Distance between the smallest numbers.
SMALLEST = {"float32": 2.0**-149, "bfloat16": 2.0**-133, "float16": 2.0**-24}


def to_bfloat16(values) -> np.ndarray:
    """Rounds to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), (bits >> 16) | 0x40, rounded).astype(np.uint16)


def from_bfloat16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_buffer(values, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return to_bfloat16(values)
    return np.ascontiguousarray(values, dtype=dtype)


def from_buffer(buffer: np.ndarray, dtype: str) -> np.ndarray:
    """As float64."""
    values = from_bfloat16(buffer) if dtype == "bfloat16" else buffer
    return values.astype(np.float64)


def empty_buffer(shape, dtype: str) -> np.ndarray:
    """Filled with NaN, so that elements nobody writes show."""
    return to_buffer(np.full(shape, np.nan, dtype=np.float32), dtype)


def random_buffer(rng: np.random.Generator, shape, dtype: str, scale: float = 1.0) -> np.ndarray:
    return to_buffer((rng.standard_normal(shape) * scale).astype(np.float32), dtype)


_LORA_LEVEL = np.dtype(  # mg_lora_level
    [("a", np.uintp), ("b", np.uintp), ("group_ends", np.uintp), ("E", np.int64), ("rank", np.int64)], align=True
)


def lora_levels(levels: list[tuple[np.ndarray, list[np.ndarray], np.ndarray]]) -> tuple[np.ndarray, list[Any]]:
    """The records for a (E, K, parts * rank), b of each part and group_ends of each level, and what they point to."""
    pointers = [(ctypes.c_void_p * len(b))(*(part.ctypes.data for part in b)) for _, b, _ in levels]
    records = np.array(
        [
            (a.ctypes.data, ctypes.addressof(parts), ends.ctypes.data, len(a), a.shape[-1] // len(parts))
            for (a, _, ends), parts in zip(levels, pointers, strict=True)
        ],
        _LORA_LEVEL,
    )
    return records, [*pointers, levels]
