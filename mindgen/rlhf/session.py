"""One sender of weights: its buffers, and the update that it has open."""

import mmap
import os
import secrets
import socket
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np

from mindgen.engine.update_options import BASE, UpdateOptions
from mindgen.errors import MindgenError, WeightUpdateError
from mindgen.kernels import plugin
from mindgen.kernels.dtypes import FILE_STORAGE
from mindgen.loop.weight_updates import OpenUpdate, UpdateRequest
from mindgen.rlhf.incoming import IncomingTensor
from mindgen.rlhf.protocol import PROTOCOL, SHARED_MEMORY, ProtocolError, receive, send
from mindgen.rlhf.recycled_memory import RecycledMemory

NAME_PREFIX = "mindgen-weights-"  # of shared memory
_NUM_BUFFERS = 4
_PIECE_BYTES = 64 << 20  # of fresh memory at a time, in large pages
_LEAST_BYTES, _MOST_BYTES = 4096, 1 << 30  # of a buffer
_Natural = Annotated[int, msgspec.Meta(ge=0)]


class Hello(msgspec.Struct):
    """The first message of a sender."""

    protocol: int
    bucket_bytes: Annotated[int, msgspec.Meta(ge=_LEAST_BYTES, le=_MOST_BYTES)]


class Begin(msgspec.Struct):
    """What the tensors that follow are for."""

    target: str
    version: int | None = None
    options: dict[str, Any] = {}


class Piece(msgspec.Struct, array_like=True):
    """Bytes of a tensor: those from `offset` on, which lie in the buffer from `start` on."""

    name: str
    dtype: str
    shape: Annotated[list[_Natural], msgspec.Meta(max_length=8)]
    offset: _Natural
    start: _Natural
    size: _Natural


class Bucket(msgspec.Struct):
    """A buffer that is filled."""

    buffer: _Natural
    pieces: list[Piece]


class UpdatedModel(Protocol):
    """Takes new weights: an LLM, or what stands before one."""

    def open_update(self, request: UpdateRequest) -> OpenUpdate: ...


class Session:
    """Answers the sender's messages until one is refused, or the sender is gone."""

    def __init__(self, model: UpdatedModel, connection: socket.socket, idle_seconds: float) -> None:
        self._model, self._connection = model, connection
        self._idle_seconds = idle_seconds
        self._update: OpenUpdate | None = None
        self._memory = RecycledMemory(_PIECE_BYTES)
        self._tensors: dict[str, IncomingTensor] = {}
        self._kernels = plugin.load_kernels()
        self._name = f"{NAME_PREFIX}{secrets.token_hex(16)}"
        self._buffers: np.ndarray = np.empty((0, 0), np.uint8)

    def serve(self) -> None:
        reason = None
        try:
            reason = self._talk()
        finally:
            (SHARED_MEMORY / self._name).unlink(missing_ok=True)
            if self._update is not None:
                self._update.cancel()
            if reason is not None:  # which the sender may answer with another update
                with suppress(OSError):
                    send(self._connection, {"type": "error", "message": reason})

    def _talk(self) -> str | None:
        """Until a message is refused, for the reason that it returns, or the sender is gone."""
        try:
            self._greet()
            while True:
                self._answer(receive(self._connection))
        except (EOFError, ConnectionError):
            return None
        except TimeoutError:
            return f"nothing has come for {self._idle_seconds:.0f} seconds: the update is called off"
        except (MindgenError, ProtocolError, msgspec.MsgspecError) as error:
            return " ".join(str(error).split())
        except Exception as error:  # the sender's model all the same, which serves on
            return f"{type(error).__name__}: {error}"

    def _greet(self) -> None:
        """Makes buffers, whose name is gone as soon as the sender has them: whoever is killed leaves nothing."""
        self._connection.settimeout(self._idle_seconds)
        hello = msgspec.convert(_of_type(receive(self._connection), "hello"), Hello)
        if hello.protocol != PROTOCOL:
            raise WeightUpdateError(f"the sender speaks protocol {hello.protocol}, and this is {PROTOCOL}")
        total = _NUM_BUFFERS * hello.bucket_bytes
        descriptor = os.open(SHARED_MEMORY / self._name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, total)
            memory = mmap.mmap(descriptor, total)
        finally:
            os.close(descriptor)
        self._buffers = np.frombuffer(memory, np.uint8).reshape(_NUM_BUFFERS, hello.bucket_bytes)
        ready = {"shared_memory": self._name, "buffers": _NUM_BUFFERS, "bucket_bytes": hello.bucket_bytes}
        send(self._connection, {"type": "ready", **ready})
        _of_type(receive(self._connection), "attached")
        (SHARED_MEMORY / self._name).unlink()
        send(self._connection, {"type": "ok"})
        self._connection.settimeout(None)

    def _answer(self, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "begin" and self._update is None:
            begin = msgspec.convert(message, Begin)
            request = UpdateRequest(begin.target, begin.version, UpdateOptions.read(begin.options))
            self._update = self._model.open_update(request)
            self._memory.begin()
            self._connection.settimeout(self._idle_seconds)
            send(self._connection, {"type": "ok"})
        elif kind == "bucket" and self._update is not None:
            self._take(msgspec.convert(message, Bucket), self._update)
        elif kind == "end" and self._update is not None:
            self._finish(self._update)
        else:
            raise ProtocolError(f"{kind!r} is no message that is expected here")

    def _take(self, bucket: Bucket, update: OpenUpdate) -> None:
        """Copies the pieces, says so, and then takes the tensors that are whole."""
        if bucket.buffer >= len(self._buffers):
            raise ProtocolError(f"there is no buffer {bucket.buffer}")
        buffer, whole = self._buffers[bucket.buffer], []
        for piece in bucket.pieces:
            tensor = self._tensors.get(piece.name) if piece.offset else self._begin(piece, update)
            if tensor is None or piece.offset != tensor.received:
                raise ProtocolError(f"a piece of {piece.name!r} begins at byte {piece.offset}, which is not the next")
            end = piece.offset + piece.size
            if end > tensor.num_bytes or piece.start + piece.size > len(buffer):
                raise ProtocolError(f"a piece of {piece.name!r} is larger than its tensor or its buffer")
            tensor.add(buffer[piece.start : piece.start + piece.size])
            if end == tensor.num_bytes:
                whole.append((piece.name, self._tensors.pop(piece.name)))
        send(self._connection, {"type": "ack", "buffer": bucket.buffer})
        for name, tensor in whole:
            values = tensor.tensor()
            if values is not None:
                update.add(name, values, tensor.examined())

    def _begin(self, piece: Piece, update: OpenUpdate) -> IncomingTensor:
        """Memory for a tensor, once it is known to be the model's."""
        if piece.name in self._tensors:
            raise ProtocolError(f"{piece.name!r} begins again before it has ended")
        if piece.dtype not in FILE_STORAGE:
            raise WeightUpdateError(f"{piece.name!r} is {piece.dtype!r}, which is no dtype of a weight")
        shape = tuple(piece.shape)
        num_bytes = FILE_STORAGE[piece.dtype]().itemsize
        for size in shape:
            num_bytes *= size
        data: np.ndarray | None = None
        if update.wants(piece.name, piece.dtype, shape):
            data = self._memory.take(num_bytes)
        kernels = self._kernels if update.request.target == BASE else None  # an adapter is looked at as a whole
        self._tensors[piece.name] = IncomingTensor(piece.dtype, shape, data, kernels)
        return self._tensors[piece.name]

    def _finish(self, update: OpenUpdate) -> None:
        if self._tensors:
            raise WeightUpdateError(f"the update ended before these tensors did: {sorted(self._tensors)[:4]}")
        self._update = None
        self._connection.settimeout(None)
        update.is_wanted = self._is_there
        report = update.finish()
        send(self._connection, {"type": "done", "report": asdict(report)})

    def _is_there(self) -> bool:
        """Whether the sender waits for an answer still."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False


def _of_type(message: dict[str, Any], kind: str) -> dict[str, Any]:
    if message["type"] != kind:
        raise ProtocolError(f"expected {kind}, not {message['type']!r}")
    return message
