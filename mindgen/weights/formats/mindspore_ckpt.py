"""MindSpore's .ckpt, read by mapping and written, without MindSpore.

A protocol buffer: Checkpoint {repeated Value value = 1}, Value {string tag = 1; Tensor tensor = 2}, Tensor {repeated
int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3}. A large tensor comes as several values of one tag,
one after the other. After them there may be `crc_num` and the CRC-32 of what precedes, in ten bytes.
"""

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.kernels import dtypes
from mindgen.system.protobuf import (
    BYTES,
    encode_field,
    encode_tag,
    encode_varint,
    read_fields,
    read_packed,
    read_text,
)
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import FileLayout, Kinds, Place, WeightFormat

_DTYPES = {dtype.mindspore_file: dtype.name for dtype in dtypes.DTYPES if dtype.mindspore_file}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}
_CRC_MARK, _CRC_BYTES = b"crc_num", 10
_MAX_DIMS = 8
_MAX_TENSORS = 100_000
_CHUNK_BYTES = 1 << 24


def map_mindspore_file(path: Path) -> dict[str, MappedTensor]:
    """All tensors of the file by name: views of it, or a copy where a tensor comes in several pieces.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        content = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:  # an empty file cannot be mapped
        raise CheckpointError(f"{path} is truncated: it is empty") from error
    try:
        return _read_tensors(_without_checksum(content))
    except CheckpointError as error:
        raise CheckpointError(f"{path} is no checkpoint of MindSpore, or damaged: {error}") from error


def write_mindspore_file(path: Path, tensors: Mapping[str, MappedTensor]) -> None:
    """Writes the tensors, as MindSpore's load_checkpoint reads them.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    FORMAT.write(path, kinds, tensors.items(), {})


def _layout(kinds: Kinds, metadata: Mapping[str, Any]) -> FileLayout:
    assert not metadata, "there is no place for metadata"
    return FileLayout(b"", tuple(_place(name, dtype, shape) for name, (dtype, shape) in kinds.items()))


def _place(name: str, dtype: str, shape: tuple[int, ...]) -> Place:
    num_bytes = math.prod(shape) * np.dtype(dtypes.FILE_STORAGE[dtype]).itemsize
    header = b"".join(encode_field(1, size) for size in shape)
    header += encode_field(2, _NAMES[dtype].encode()) + encode_tag(3, BYTES) + encode_varint(num_bytes)
    tensor_size = len(header) + num_bytes
    tag = encode_field(1, name.encode())
    start = encode_tag(2, BYTES) + encode_varint(tensor_size)
    value_size = len(tag) + len(start) + tensor_size
    return Place(name, encode_tag(1, BYTES) + encode_varint(value_size) + tag + start + header, num_bytes)


def _without_checksum(content: np.ndarray) -> np.ndarray:
    end = content.size - _CRC_BYTES - len(_CRC_MARK)
    if end < 0 or bytes(content[end : end + len(_CRC_MARK)]) != _CRC_MARK:
        return content
    checksum = 0
    for start in range(0, end, _CHUNK_BYTES):
        checksum = zlib.crc32(content[start : min(start + _CHUNK_BYTES, end)].data, checksum)
    if checksum != int.from_bytes(bytes(content[-_CRC_BYTES:]), "big"):
        raise CheckpointError("its checksum is wrong")
    return content[:end]


def _read_tensors(content: np.ndarray) -> dict[str, MappedTensor]:
    tensors: dict[str, MappedTensor] = {}
    pieces: list[np.ndarray] = []
    last: tuple[str, str, tuple[int, ...]] | None = None

    def finish() -> None:
        if last is not None:
            name, kind, shape = last
            if name in tensors or len(tensors) == _MAX_TENSORS:
                raise CheckpointError(f"{name!r} stands there twice, or there are more than {_MAX_TENSORS} tensors")
            tensors[name] = _assemble(name, kind, shape, pieces)
            pieces.clear()

    for field, value in read_fields(content):
        if field != 1 or isinstance(value, int):
            raise CheckpointError(f"it has an unknown field {field}")
        name, tensor = _read_value(value)
        kind, shape, data = _read_tensor(name, tensor)
        if last is not None and last != (name, kind, shape):
            finish()
        last = (name, kind, shape)
        pieces.append(data)
    finish()
    return tensors


def _read_value(value: np.ndarray) -> tuple[str, np.ndarray]:
    fields = dict(read_fields(value))
    name, tensor = fields.get(1), fields.get(2)
    if fields.keys() != {1, 2} or isinstance(name, int) or isinstance(tensor, int):
        raise CheckpointError("a value is not a named tensor")
    assert name is not None and tensor is not None
    return read_text(name), tensor


def _read_tensor(name: str, tensor: np.ndarray) -> tuple[str, tuple[int, ...], np.ndarray]:
    shape: list[int] = []
    kind, data = "", None
    for field, value in read_fields(tensor):
        if field == 1 and len(shape) < _MAX_DIMS:
            shape += [value] if isinstance(value, int) else read_packed(value, _MAX_DIMS)
        elif field == 2 and not isinstance(value, int):
            kind = read_text(value)
        elif field == 3 and not isinstance(value, int) and data is None:
            data = value
        else:
            raise CheckpointError(f"{name!r} has an unknown field {field}")
    if kind not in _DTYPES or data is None or not all(0 <= size < 2**63 for size in shape):
        raise CheckpointError(f"{name!r} has type {kind[:20]!r}, or no data; types read are {', '.join(_DTYPES)}")
    return kind, () if shape == [0] else tuple(shape), data


def _assemble(name: str, kind: str, shape: tuple[int, ...], pieces: list[np.ndarray]) -> MappedTensor:
    dtype, storage = _DTYPES[kind], dtypes.FILE_STORAGE[_DTYPES[kind]]
    size, expected = sum(piece.size for piece in pieces), math.prod(shape) * np.dtype(storage).itemsize
    if size != expected or len(shape) > _MAX_DIMS:
        raise CheckpointError(f"{name!r} of shape {shape} needs {expected} bytes, but has {size}")
    data = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return MappedTensor(dtype, data.view(storage).reshape(shape))


FORMAT = WeightFormat(
    name="MindSpore checkpoint",
    suffix=".ckpt",
    model_file="model.ckpt",
    index_file=None,
    preference=2,
    map=map_mindspore_file,
    layout=_layout,
)
