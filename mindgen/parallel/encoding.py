"""Messages as bytes: data of declared types alone, so that whatever a stranger sends is a value or an error."""

from collections.abc import Callable
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from mindgen import errors
from mindgen.errors import MessageError, MindgenError

_DTYPES = frozenset(np.dtype(name).str for name in ("bool", "u1", "u2", "i4", "i8", "f2", "f4", "f8"))


def encode(value: Any) -> bytes:
    """Of dataclasses, tuples, lists, dictionaries, numbers, texts, bytes, and of arrays, paths, and mindgen's errors.

    A class may say what it is made of by `as_record()`, and make itself of that by `from_record()`.

    Raises:
        MessageError: it holds something else.
    """
    try:
        return msgspec.msgpack.encode(value, enc_hook=_taken_apart)
    except (TypeError, OverflowError, RecursionError) as error:
        raise MessageError(f"no message can hold this: {error}") from error


def decode(data: bytes | msgspec.Raw, kind: Any) -> Any:
    """The value of that type.

    Raises:
        MessageError: the bytes are none of it.
    """
    try:
        return _decoder(kind).decode(data)
    except (msgspec.MsgspecError, MindgenError, RecursionError, UnicodeDecodeError) as error:
        raise MessageError(f"a message is malformed: {error}") from error


@cache
def _decoder(kind: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(kind, dec_hook=_put_together)


def _taken_apart(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, np.integer | np.floating | np.bool_):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, MindgenError):
        return type(value).__name__, str(value), value.exit_code
    if hasattr(value, "as_record"):
        return value.as_record()
    raise TypeError(f"it is a {type(value).__name__}")


def _put_together(kind: type, record: Any) -> Any:
    makers: dict[type, Callable[[Any], Any]] = {np.ndarray: _array, Path: _path, MindgenError: _error}
    maker = makers[kind] if kind in makers else getattr(kind, "from_record", _refuse)
    return maker(record)


def _array(record: Any) -> np.ndarray:
    dtype, shape, data = msgspec.convert(record, tuple[str, tuple[int, ...], bytes])
    if dtype not in _DTYPES:
        raise MessageError(f"no array may be of {dtype!r}")
    if any(size < 0 for size in shape) or prod(shape) * np.dtype(dtype).itemsize != len(data):
        raise MessageError(f"an array {shape} of {dtype!r} does not have {len(data)} bytes")
    return np.frombuffer(bytearray(data), dtype).reshape(shape)


def _path(record: Any) -> Path:
    return Path(msgspec.convert(record, str))


def _error(record: Any) -> MindgenError:
    name, message, exit_code = msgspec.convert(record, tuple[str, str, int])
    kind = getattr(errors, name, None)
    if not (isinstance(kind, type) and issubclass(kind, MindgenError)):
        raise MessageError(f"there is no error {name!r}")
    error = kind(message)
    error.exit_code = exit_code
    return error


def _refuse(record: Any) -> NoReturn:
    raise MessageError("no message may hold this")
