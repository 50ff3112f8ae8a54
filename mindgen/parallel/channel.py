"""Messages between two processes of one user on one machine, over a Unix socket.

They are pickled: who may connect is decided by the mode of the socket's folder.
"""

import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOCKET = "rank_0.sock"  # where rank 0 listens, in the folder where ranks meet
SIGN_OF_LIFE = "sign_of_life"  # the call that wants nothing but an answer
_LENGTH = struct.Struct("<Q")
_RETRY_SECONDS = 0.05
_MOST_FILES = 16  # at a time


class Channel:
    """One end; any thread may send, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()

    def send(self, message: Any) -> None:
        """Raises OSError when the other end is gone."""
        data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        with self._sending:
            self._connection.sendall(_LENGTH.pack(len(data)) + data)

    def receive(self) -> Any:
        """Raises EOFError when the other end is gone."""
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size))
        return pickle.loads(self._read(length))

    def send_files(self, descriptors: list[int]) -> None:
        with self._sending:
            socket.send_fds(self._connection, [b"f"], descriptors)

    def receive_files(self) -> list[int]:
        """The descriptors of files that the other end has open."""
        _, descriptors, _, _ = socket.recv_fds(self._connection, 1, _MOST_FILES)
        if not descriptors:
            raise EOFError
        return descriptors

    def close(self) -> None:
        """Whoever receives, at either end, has an EOFError now."""
        with suppress(OSError):  # the other end may have been faster
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def _read(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            try:
                piece = self._connection.recv(min(size - len(data), 1 << 20))
            except OSError as error:
                raise EOFError from error
            if not piece:
                raise EOFError
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
