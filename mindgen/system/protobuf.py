"""The wire format of protocol buffers, as far as MindSpore's files use it."""

from collections.abc import Iterator

import numpy as np

from mindgen.errors import CheckpointError

VARINT, BYTES, FIXED32 = 0, 2, 5
_MAX_NAME_BYTES = 1000


def read_fields(message: np.ndarray) -> Iterator[tuple[int, int | np.ndarray]]:
    """The fields of a message by number: integers, and views of what has a length, or four bytes."""
    position = 0
    while position < message.size:
        tag, position = _read_varint(message, position)
        kind = tag & 7
        if kind not in (VARINT, BYTES, FIXED32):
            raise CheckpointError(f"it has a field of unknown kind {kind}")
        value, position = (4, position) if kind == FIXED32 else _read_varint(message, position)
        if kind == VARINT:
            yield tag >> 3, value
            continue
        if value > message.size - position:
            raise CheckpointError(f"it is truncated: {value} bytes promised, {message.size - position} there")
        yield tag >> 3, message[position : position + value]
        position += value


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


def read_packed(values: np.ndarray, limit: int) -> list[int]:
    """The integers of a packed field; one more than the limit at most."""
    numbers: list[int] = []
    position = 0
    while position < values.size and len(numbers) <= limit:
        number, position = _read_varint(values, position)
        numbers.append(number)
    return numbers


def read_text(value: np.ndarray) -> str:
    """
    Raises:
        CheckpointError: it is too long for a name, or not UTF-8.
    """
    if value.size > _MAX_NAME_BYTES:
        raise CheckpointError(f"a name is {value.size} bytes long")
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise CheckpointError("a name is not UTF-8") from error


def encode_field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return encode_tag(number, VARINT) + encode_varint(value)
    return encode_tag(number, BYTES) + encode_varint(len(value)) + value


def encode_tag(number: int, kind: int) -> bytes:
    return encode_varint(number << 3 | kind)


def encode_varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
