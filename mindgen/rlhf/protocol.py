"""The messages of docs/rlhf.md: four bytes of length (big-endian), and an object of JSON in UTF-8."""

import json
import socket
import struct
from pathlib import Path
from typing import Any

from mindgen.system.plain_json import plain

PROTOCOL = 1
SHARED_MEMORY = Path("/dev/shm")
_LENGTH = struct.Struct(">I")
_MOST_BYTES = 16 << 20


class ProtocolError(Exception):
    """It is no message."""


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """
    Raises:
        OSError: the other end is gone.
        ProtocolError: a value has no form in JSON.
    """
    try:
        data = json.dumps(message, default=plain).encode()
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"the message cannot be sent: {error}") from error
    connection.sendall(_LENGTH.pack(len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any]:
    """
    Raises:
        EOFError: the other end is gone.
        TimeoutError: it says nothing.
        ProtocolError: it is no message.
    """
    (length,) = _LENGTH.unpack(_read(connection, _LENGTH.size))
    if length > _MOST_BYTES:
        raise ProtocolError(f"a message claims {length} bytes: {_MOST_BYTES} is the limit")
    try:
        message = json.loads(_read(connection, length))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a message is no JSON: {error}") from error
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("a message must be an object with a type")
    return message


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            part = connection.recv(size - len(data))
        except ConnectionError as error:
            raise EOFError(str(error)) from error
        if not part:
            raise EOFError("the other end is gone")
        data += part
    return bytes(data)
