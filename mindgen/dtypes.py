"""Dtypes, and how numpy stores them: bfloat16 and float8, which numpy lacks, as their bits."""

import numpy as np

# In which a model can be.
STORAGE: dict[str, type] = {"float32": np.float32, "bfloat16": np.uint16, "float16": np.float16}
# From which a model's and an adapter's tensors can be made.
FLOATS = (*STORAGE, "float64")
# In which files may hold tensors, whether or not anybody needs these.
FILE_STORAGE: dict[str, type] = {
    **STORAGE,
    "float64": np.float64,
    **dict.fromkeys(("bool", "uint8", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu"), np.uint8),
    "int8": np.int8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "complex64": np.complex64,
}
# The bits besides the sign, and infinity's.
_MAGNITUDES: dict[str, tuple[np.unsignedinteger, int]] = {
    "float32": (np.uint32(0x7FFFFFFF), 0x7F800000),
    "bfloat16": (np.uint16(0x7FFF), 0x7F80),
    "float16": (np.uint16(0x7FFF), 0x7C00),
}


def from_float32(values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 values in the storage of dtype, rounded to nearest even; the same array when dtype is float32."""
    if dtype != "bfloat16":
        return values.astype(STORAGE[dtype], copy=False)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    # Rounding could carry a NaN's payload into infinity.
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)


def to_float32(stored: np.ndarray, dtype: str) -> np.ndarray:
    """The float32 values of an array in the storage of dtype; what is beyond float32 becomes infinite."""
    if dtype != "bfloat16":
        with np.errstate(over="ignore"):
            return stored.astype(np.float32)
    bits = stored.astype(np.uint32, subok=False)
    bits <<= 16
    return bits.view(np.float32)


def are_finite(stored: np.ndarray, dtype: str) -> bool:
    """Whether no value of an array in the storage of dtype is infinite or NaN."""
    if stored.size == 0:
        return True
    # Without their signs, values are ordered like their bits.
    mask, infinity = _MAGNITUDES[dtype]
    return bool(np.maximum.reduce(stored.view(mask.dtype) & mask, axis=None) < infinity)
