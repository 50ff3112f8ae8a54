"""MindSpore's .ckpt, read by mapping and written, without MindSpore.

A protocol buffer: Checkpoint {repeated Value value = 1}, Value {string tag = 1; Tensor tensor = 2}, Tensor {repeated
int64 dims = 1; string tensor_type = 2; bytes tensor_content = 3}. A large tensor comes as several values of one tag,
one after the other. After them there may be `crc_num` and the CRC-32 of what precedes, in ten bytes.
"""

import math
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import CheckpointError

_DTYPES = {
    "Float32": ("float32", np.float32),
    "Float16": ("float16", np.float16),
    "BFloat16": ("bfloat16", np.uint16),
    "Float64": ("float64", np.float64),
    "Int32": ("int32", np.int32),
    "Int64": ("int64", np.int64),
}
_NAMES = {dtype: name for name, (dtype, _) in _DTYPES.items()}
_CRC_MARK, _CRC_BYTES = b"crc_num", 10
_MAX_NAME_BYTES = 1000
_MAX_DIMS = 8
_MAX_TENSORS = 100_000
_CHUNK_BYTES = 1 << 24
_VARINT, _BYTES = 0, 2


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


def write_mindspore_file(path: Path, tensors: dict[str, MappedTensor]) -> None:
    """Writes the tensors, one after the other, as MindSpore's load_checkpoint reads them."""
    with path.open("wb") as file:
        for name, tensor in tensors.items():
            data = np.ascontiguousarray(tensor.data)
            header = b"".join(_field(1, size) for size in tensor.shape) + _field(2, _NAMES[tensor.dtype].encode())
            content_size = _tag(3, _BYTES) + _varint(data.nbytes)
            tag = _field(1, name.encode())
            tensor_size = len(header) + len(content_size) + data.nbytes
            start = _tag(2, _BYTES) + _varint(tensor_size)
            file.write(_tag(1, _BYTES) + _varint(len(tag) + len(start) + tensor_size) + tag + start)
            file.write(header + content_size)
            file.write(data.data)


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

    for field, value in _fields(content):
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
    fields = dict(_fields(value))
    name, tensor = fields.get(1), fields.get(2)
    if fields.keys() != {1, 2} or isinstance(name, int) or isinstance(tensor, int):
        raise CheckpointError("a value is not a named tensor")
    assert name is not None and tensor is not None
    return _text(name), tensor


def _read_tensor(name: str, tensor: np.ndarray) -> tuple[str, tuple[int, ...], np.ndarray]:
    shape: list[int] = []
    kind, data = "", None
    for field, value in _fields(tensor):
        if field == 1 and len(shape) < _MAX_DIMS:
            shape += [value] if isinstance(value, int) else _packed(value)
        elif field == 2 and not isinstance(value, int):
            kind = _text(value)
        elif field == 3 and not isinstance(value, int) and data is None:
            data = value
        else:
            raise CheckpointError(f"{name!r} has an unknown field {field}")
    if kind not in _DTYPES or data is None or not all(0 <= size < 2**63 for size in shape):
        raise CheckpointError(f"{name!r} has type {kind[:20]!r}, or no data; types read are {', '.join(_DTYPES)}")
    return kind, () if shape == [0] else tuple(shape), data


def _assemble(name: str, kind: str, shape: tuple[int, ...], pieces: list[np.ndarray]) -> MappedTensor:
    dtype, storage = _DTYPES[kind]
    size, expected = sum(piece.size for piece in pieces), math.prod(shape) * np.dtype(storage).itemsize
    if size != expected or len(shape) > _MAX_DIMS:
        raise CheckpointError(f"{name!r} of shape {shape} needs {expected} bytes, but has {size}")
    data = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    return MappedTensor(dtype, data.view(storage).reshape(shape))


def _fields(message: np.ndarray) -> Iterator[tuple[int, int | np.ndarray]]:
    """The fields of a message by number: integers, and views of what has a length."""
    position = 0
    while position < message.size:
        tag, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        if tag & 7 == _VARINT:
            yield tag >> 3, value
        elif tag & 7 == _BYTES:
            if value > message.size - position:
                raise CheckpointError(f"it is truncated: {value} bytes promised, {message.size - position} there")
            yield tag >> 3, message[position : position + value]
            position += value
        else:
            raise CheckpointError(f"it has a field of unknown kind {tag & 7}")


def _read_varint(message: np.ndarray, position: int) -> tuple[int, int]:
    value = 0
    for count in range(10):
        if position + count >= message.size:
            raise CheckpointError("it is truncated in a number")
        byte = int(message[position + count])
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, position + count + 1
    raise CheckpointError("it has a number of more than ten bytes")


def _packed(values: np.ndarray) -> list[int]:
    numbers: list[int] = []
    position = 0
    while position < values.size and len(numbers) <= _MAX_DIMS:
        number, position = _read_varint(values, position)
        numbers.append(number)
    return numbers


def _text(value: np.ndarray) -> str:
    if value.size > _MAX_NAME_BYTES:
        raise CheckpointError(f"a name is {value.size} bytes long")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError("a name is not UTF-8") from error


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _tag(number, _VARINT) + _varint(value)
    return _tag(number, _BYTES) + _varint(len(value)) + value


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
