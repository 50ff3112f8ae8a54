"""Arrays from one process to another on the same machine: in memory that both see, with word of each over a socket.

Nothing in the memory is overwritten before both have rewound, so nobody waits for the reader.
"""

import mmap
import os
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

import numpy as np

_SHAPE = struct.Struct("<qq")


class PipeFiles(NamedTuple):
    """Descriptors: the memory, and both ends of the socket."""

    memory: int
    reader: int
    writer: int

    def close(self) -> None:
        for descriptor in self:
            os.close(descriptor)


def open_pipe(num_bytes: int) -> PipeFiles:
    """A pipe for at most so many bytes at a time; they are taken as they are written, and nothing has a name."""
    memory = os.memfd_create("mindgen", os.MFD_CLOEXEC)
    os.ftruncate(memory, num_bytes)
    reader, writer = socket.socketpair()
    return PipeFiles(memory, reader.detach(), writer.detach())


class _PipeEnd:
    def __init__(self, memory: int, connection: int, dtype: type) -> None:
        self._bytes: np.ndarray = np.frombuffer(mmap.mmap(memory, os.fstat(memory).st_size), np.uint8)
        self._connection = socket.socket(fileno=os.dup(connection))
        self._dtype: np.dtype = np.dtype(dtype)
        self._place = 0

    def rewind(self) -> None:
        """From here on the memory is used from its beginning again."""
        self._place = 0

    def close(self) -> None:
        """Whoever reads, at either end, has an EOFError now."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _next(self, rows: int, columns: int) -> np.ndarray:
        start = self._place
        self._place += rows * columns * self._dtype.itemsize
        return self._bytes[start : self._place].view(self._dtype).reshape(rows, columns)


class ArrayWriter(_PipeEnd):
    """The end that arrays go into."""

    def write(self, array: np.ndarray) -> None:
        """array (rows, columns) of the pipe's dtype."""
        self._next(*array.shape)[:] = array
        self._connection.sendall(_SHAPE.pack(*array.shape))


class ArrayReader(_PipeEnd):
    """The end that they come out of, as views that are good until the pipe is rewound."""

    def read(self) -> np.ndarray:
        """The next array, once it is there; raises EOFError when the pipe is closed."""
        try:
            told = self._connection.recv(_SHAPE.size, socket.MSG_WAITALL)
        except OSError as error:
            raise EOFError from error
        if len(told) < _SHAPE.size:
            raise EOFError
        return self._next(*_SHAPE.unpack(told))

    def read_together(self, count: int) -> np.ndarray:
        """The next so many arrays, one below the other."""
        parts = [self.read() for _ in range(count)]
        columns = parts[0].shape[1]
        rows = sum(len(part) for part in parts)
        self._place -= rows * columns * self._dtype.itemsize
        return self._next(rows, columns)
