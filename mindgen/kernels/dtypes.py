"""Dtypes, and how numpy stores them: bfloat16 and float8, which numpy lacks, as their bits."""

from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np


class Dtype(NamedTuple):
    """A dtype under its names: None where a kind of file has none. Its name here is also MindSpore's and numpy's."""

    name: str
    storage: type
    safetensors: str | None = None
    torch_storage: str | None = None
    mindspore_file: str | None = None


# In which a model can be, and then those in which files may hold tensors, whether or not anybody needs these.
_MODEL_DTYPES = (
    Dtype("float32", np.float32, "F32", "FloatStorage", "Float32"),
    Dtype("bfloat16", np.uint16, "BF16", "BFloat16Storage", "BFloat16"),
    Dtype("float16", np.float16, "F16", "HalfStorage", "Float16"),
)
DTYPES = (
    *_MODEL_DTYPES,
    Dtype("float64", np.float64, "F64", "DoubleStorage", "Float64"),
    Dtype("float8_e4m3fn", np.uint8, "F8_E4M3"),
    Dtype("float8_e5m2", np.uint8, "F8_E5M2"),
    Dtype("float8_e8m0fnu", np.uint8, "F8_E8M0"),
    Dtype("complex64", np.complex64, "C64"),
    Dtype("bool", np.uint8, "BOOL", "BoolStorage", "Bool"),
    Dtype("int8", np.int8, "I8", "CharStorage", "Int8"),
    Dtype("uint8", np.uint8, "U8", "ByteStorage", "UInt8"),
    Dtype("int16", np.int16, "I16", "ShortStorage", "Int16"),
    Dtype("uint16", np.uint16, "U16", None, "UInt16"),
    Dtype("int32", np.int32, "I32", "IntStorage", "Int32"),
    Dtype("uint32", np.uint32, "U32", None, "UInt32"),
    Dtype("int64", np.int64, "I64", "LongStorage", "Int64"),
    Dtype("uint64", np.uint64, "U64", None, "UInt64"),
)
STORAGE: dict[str, type] = {dtype.name: dtype.storage for dtype in _MODEL_DTYPES}
FILE_STORAGE: dict[str, type] = {dtype.name: dtype.storage for dtype in DTYPES}
# What a user may ask for: "auto" is the checkpoint's own.
DtypeChoice: TypeAlias = Literal["auto", "bfloat16", "float16", "float32"]
DTYPE_CHOICES: tuple[str, ...] = get_args(DtypeChoice)
# From which a model's and an adapter's tensors can be made.
FLOATS = (*STORAGE, "float64")


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
