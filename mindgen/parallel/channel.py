"""Messages between two processes, over a Unix socket on one machine or over TCP between two."""

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mindgen.errors import MessageError
from mindgen.parallel.encoding import decode, encode

SOCKET = "rank_0.sock"  # where rank 0 listens, in the folder where ranks meet
MAX_MESSAGE_BYTES = 1 << 30
SIGN_OF_LIFE = "sign_of_life"  # the call that wants nothing but an answer
_LENGTH = struct.Struct("<Q")
_PIECE_BYTES = 1 << 20
_RETRY_SECONDS = 0.05
_MOST_FILES = 253  # that Linux hands over at a time


class Channel:
    """One end; any thread may send, one receives.

    Args:
        max_bytes: of a message.
    """

    def __init__(self, connection: socket.socket, max_bytes: int = MAX_MESSAGE_BYTES) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self.max_bytes = max_bytes

    def send(self, message: Any) -> None:
        """Raises OSError when the other end is gone, MessageError if the message is too large."""
        self.send_bytes(encode(message))

    def receive(self, kind: Any, seconds: float | None = None) -> Any:
        """The next message, which must be of that type.

        Raises:
            EOFError: the other end is gone.
            TimeoutError: it is not there within so many seconds.
            MessageError: it is too large, or of no such type.
        """
        return decode(self.receive_bytes(seconds), kind)

    def send_bytes(self, data: bytes) -> None:
        """Of a message that is encoded already."""
        if len(data) > self.max_bytes:
            raise MessageError(f"a message of {len(data)} bytes is too large: {self.max_bytes} is the limit")
        with self._sending:
            self._connection.sendall(_LENGTH.pack(len(data)) + data)

    def receive_bytes(self, seconds: float | None = None) -> bytes:
        """As `receive`, of a message that is not decoded."""
        deadline = None if seconds is None else time.monotonic() + seconds
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > self.max_bytes:
            raise MessageError(f"a message claims {length} bytes: {self.max_bytes} is the limit")
        return self._read(length, deadline)

    def send_files(self, descriptors: Sequence[int]) -> None:
        """Over a Unix socket alone."""
        with self._sending:
            socket.send_fds(self._connection, [b"f"], list(descriptors))

    def receive_files(self) -> list[int]:
        """The descriptors of files that the other end has open."""
        _, descriptors, _, _ = socket.recv_fds(self._connection, 1, _MOST_FILES)
        if not descriptors:
            raise EOFError
        return list(descriptors)

    def close(self) -> None:
        """Whoever receives, at either end, has an EOFError now."""
        with suppress(OSError):  # the other end may have been faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self, size: int, deadline: float | None) -> bytes:
        """Memory is taken as the bytes come, whatever was claimed."""
        data = bytearray()
        while len(data) < size:
            try:
                self._connection.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
                piece = self._connection.recv(min(size - len(data), _PIECE_BYTES))
            except TimeoutError:
                if deadline is not None:
                    raise TimeoutError("it has said nothing, or not enough") from None
                raise EOFError("it has fallen silent") from None
            except OSError as error:
                raise EOFError(os.strerror(error.errno) if error.errno else str(error)) from error
            if not piece:
                raise EOFError("the other side has closed it")
            data += piece
        return bytes(data)


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with _address(path) as address:
        listener.bind(address)
    listener.listen()
    return listener


def connect(path: Path, seconds: float) -> Channel:
    """Waits until somebody listens there.

    Raises:
        TimeoutError: nobody does.
    """
    deadline = time.monotonic() + seconds
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _address(path) as address:
                connection.connect(address)
            return Channel(connection)
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError(f"nobody listens at {path}") from error
            time.sleep(_RETRY_SECONDS)


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """A name for the socket that is short enough for one, however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
