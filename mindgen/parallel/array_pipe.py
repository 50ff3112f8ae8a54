"""Arrays from one process to another on the same machine: in memory that both see, with word of each over a socket."""

import mmap
import os
import select
import socket
import struct
from contextlib import suppress
from typing import NamedTuple

import numpy as np

_SHAPE = struct.Struct("<qq")
_LOOK_AGAIN_MILLISECONDS = 20  # whoever waits without using any processor time at all is taken to be stuck


class PipeFiles(NamedTuple):
    """Descriptors: the memory, and both ends of the socket."""

    memory: int
    reader: int
    writer: int


def open_pipe(num_bytes: int) -> PipeFiles:
    """A pipe for at most so many bytes at a time; they are taken as they are written, and nothing has a name."""
    memory = os.memfd_create("mindgen", os.MFD_CLOEXEC)
    os.ftruncate(memory, num_bytes)
    reader, writer = socket.socketpair()
    return PipeFiles(memory, reader.detach(), writer.detach())


class _PipeEnd:
    """One end.

    Attributes:
        memory: of as many elements as may be, of which an array takes the first.
    """

    def __init__(self, memory: int, connection: int, dtype: type) -> None:
        self.memory: np.ndarray = np.frombuffer(mmap.mmap(memory, os.fstat(memory).st_size), dtype)
        self._connection = socket.socket(fileno=os.dup(connection))

    def close(self) -> None:
        """Whoever reads, at either end, has an EOFError now."""
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def _view(self, rows: int, columns: int) -> np.ndarray:
        return self.memory[: rows * columns].reshape(rows, columns)


class ArrayWriter(_PipeEnd):
    """The end that arrays go into."""

    def write(self, array: np.ndarray) -> None:
        """array (rows, columns), which takes the place of the one before; that must have been used.

        It may lie in the memory already.
        """
        place = self._view(*array.shape)
        if array.ctypes.data != place.ctypes.data:
            place[:] = array
        self._connection.sendall(_SHAPE.pack(*array.shape))


class ArrayReader(_PipeEnd):
    """The end that they come out of, as views of the memory."""

    def __init__(self, memory: int, connection: int, dtype: type) -> None:
        super().__init__(memory, connection, dtype)
        self._poll = select.poll()
        self._poll.register(self._connection, select.POLLIN)

    def read(self) -> np.ndarray:
        """The next array, once it is there; raises EOFError when the pipe is closed."""
        while not self._poll.poll(_LOOK_AGAIN_MILLISECONDS):
            pass
        try:
            told = self._connection.recv(_SHAPE.size, socket.MSG_WAITALL)
        except OSError as error:
            raise EOFError from error
        if len(told) < _SHAPE.size:
            raise EOFError
        return self._view(*_SHAPE.unpack(told))
