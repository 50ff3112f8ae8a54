"""The container of GGUF version 3 as it is written (ggml's docs/gguf.md): metadata, and the tensors' places."""

import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.weights.formats.gguf_container import ARRAY, BOOL, MAGIC, SCALARS, TENSOR_TYPES, TEXT
from mindgen.weights.weight_format import FileLayout, Kinds, Place

Q8_0 = "q8_0"  # beside the names of dtypes, what a tensor of this file can be in
_VERSION = 3
_ALIGNMENT = 32
_UINT32, _FLOAT32 = 4, 6
_TYPE_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", Q8_0: "Q8_0"}
_TYPE_IDS = {
    dtype: next(i for i, each in TENSOR_TYPES.items() if each.name == name) for dtype, name in _TYPE_NAMES.items()
}
_SCALAR_IDS = {dtype: kind for kind, dtype in SCALARS.items() if kind != BOOL}


def gguf_layout(kinds: Kinds, metadata: Mapping[str, Any]) -> FileLayout:
    """Of a file with these tensors.

    Args:
        kinds: dtypes or q8_0, and shapes in numpy's order.
        metadata: texts, truth values, integers (below 2**32), floats (as float32), lists of texts, arrays of numbers.
    """
    header = bytearray(MAGIC + struct.pack("<IQQ", _VERSION, len(kinds), len(metadata)))
    for key, value in metadata.items():
        header += _text(key) + _value(value)
    places = []
    offset = 0
    for name, (dtype, shape) in kinds.items():
        kind = TENSOR_TYPES[_TYPE_IDS[dtype]]
        num_bytes = math.prod(shape) // kind.block * kind.block_bytes
        header += _text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        header += struct.pack("<IQ", _TYPE_IDS[dtype], offset)
        places.append(Place(name, b"", num_bytes, bytes(-num_bytes % _ALIGNMENT)))
        offset += places[-1].total_bytes
    return FileLayout(bytes(header) + bytes(-len(header) % _ALIGNMENT), tuple(places))


def _value(value: Any) -> bytes:
    """Its type, and what it is."""
    if isinstance(value, np.ndarray):
        kind = _SCALAR_IDS[value.dtype.newbyteorder("<")]
        return struct.pack("<IIQ", ARRAY, kind, value.size) + value.astype(SCALARS[kind]).tobytes()
    if isinstance(value, list):
        return struct.pack("<IIQ", ARRAY, TEXT, len(value)) + b"".join(map(_text, value))
    if isinstance(value, str):
        return struct.pack("<I", TEXT) + _text(value)
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    return struct.pack("<If", _FLOAT32, value)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def pack_q8_0(values: np.ndarray) -> np.ndarray:
    """float32 rows (N, K), of whole blocks of 32, as the bytes (N, K / 32 * 34) of Q8_0.

    As ggml's quantize_row_q8_0_ref: a block's scale d is its largest magnitude / 127, in float16, and its values are
    x / d (with the d that is not rounded yet), rounded to the nearest, halves away from zero.

    Raises:
        CheckpointError: a value is not finite, or too large for a scale in float16.
    """
    rows, columns = values.shape
    blocks = values.reshape(-1, 32)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(over="ignore"):
        rounded = scales.astype(np.float16)
    if not np.isfinite(rounded).all():
        raise CheckpointError("there are values that Q8_0 cannot hold: not finite, or above 8 million")
    with np.errstate(divide="ignore"):
        inverses = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
    scaled = blocks * inverses
    magnitudes = np.abs(scaled)
    whole = np.floor(magnitudes)
    whole += magnitudes - whole >= np.float32(0.5)
    packed: np.ndarray = np.empty((len(blocks), 34), np.uint8)
    packed[:, :2] = rounded.view(np.uint8)
    packed[:, 2:] = np.copysign(whole, scaled).astype(np.int8).view(np.uint8)
    return packed.reshape(rows, columns // 32 * 34)
