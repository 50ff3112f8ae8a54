"""Sends weights to a mindgen of the same host, through shared memory. It needs numpy, and nothing that is larger."""

import mmap
import os
import socket
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.rlhf.protocol import PROTOCOL, SHARED_MEMORY, ProtocolError, receive, send
from mindgen.weights.host_array import host_array

_BUCKET_BYTES = 2 << 20  # small enough to be read before it leaves the cores' cache
_CLOSE_SECONDS = 5.0
_BITS = ("u2", "i2")  # of bfloat16


class WeightSendError(Exception):
    """The model has refused the weights, or is gone; its message says why."""


class WeightSender:
    """One at a time may send.

    Args:
        path: of the receiver's socket.
        bucket_bytes: of each of the buffers that tensors go through, in pieces where they are larger.
        seconds: to wait for an answer, which comes when requests in flight let the weights take their place.

    Raises:
        WeightSendError: nobody listens there.
    """

    def __init__(self, path: str | Path, bucket_bytes: int = _BUCKET_BYTES, seconds: float = 600.0) -> None:
        self._path, self._bucket_bytes, self._seconds = str(path), bucket_bytes, seconds
        self._connection: socket.socket | None = None
        self._buffers: list[np.ndarray] = []
        self._connect()

    def send(
        self,
        weights: Mapping[str, Any] | Iterable[tuple[str, Any]],
        target: str = "base",
        version: int | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Has the weights serve, all at once; returns what `LLM.update_weights` reports, and as transfer_seconds the
        time until the receiver had all of them.

        Args:
            weights: names and tensors: of numpy, MindSpore or torch, or a pair of "bfloat16" and an array of its bits
                (uint16).
            target, version, options: as of `LLM.update_weights`.

        Raises:
            WeightSendError: they are refused, and the old ones serve.
        """
        if self._connection is None:
            self._connect()
        pairs = weights.items() if isinstance(weights, Mapping) else weights
        if not isinstance(pairs, Iterable):
            raise WeightSendError(f"expected names and tensors, not a {type(weights).__name__}")
        try:
            self._ask({"type": "begin", "target": target, "version": version, "options": options}, "ok")
            started = time.perf_counter()
            self._fill(pairs)
            seconds = time.perf_counter() - started
            report = self._finish()
        except BaseException as error:
            self.close()  # which calls the update off
            if isinstance(error, (OSError, EOFError, ProtocolError)):
                raise WeightSendError(f"{self._path}: the receiver is gone or says nothing: {error}") from error
            raise
        return dict(report) | {"transfer_seconds": seconds}

    def _finish(self) -> dict[str, Any]:
        """What the receiver reports; after its time the update is called off, unless it has ended just then."""
        try:
            return self._ask({"type": "end"}, "done")["report"]  # type: ignore[no-any-return]
        except TimeoutError:
            reason = f"{self._path}: the weights could not serve within {self._seconds:g} seconds"
        assert self._connection is not None
        try:
            self._connection.shutdown(socket.SHUT_WR)
            self._connection.settimeout(_CLOSE_SECONDS)
            report = self._answer("done")["report"]
        except WeightSendError as error:
            raise WeightSendError(f"{reason}: {error}") from None
        except (OSError, EOFError, ProtocolError) as error:
            raise WeightSendError(
                f"{reason}, and whether they do now is not known: compare the model's weight_version"
            ) from error
        self.close()
        return report  # type: ignore[no-any-return]

    def close(self) -> None:
        """Calls off what is on its way; returns when the receiver has done so."""
        connection, self._connection, self._buffers = self._connection, None, []
        if connection is None:
            return
        with connection, suppress(OSError):
            connection.settimeout(_CLOSE_SECONDS)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass

    def __enter__(self) -> "WeightSender":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._connection.settimeout(self._seconds)
        try:
            self._connection.connect(self._path)
            ready = self._ask({"type": "hello", "protocol": PROTOCOL, "bucket_bytes": self._bucket_bytes}, "ready")
            self._bucket_bytes = ready["bucket_bytes"]
            self._attach(ready["shared_memory"], ready["buffers"])
            self._ask({"type": "attached"}, "ok")
        except (OSError, EOFError, ProtocolError) as error:
            self.close()
            raise WeightSendError(f"{self._path}: no receiver of weights listens there: {error}") from error

    def _attach(self, name: str, num_buffers: int) -> None:
        descriptor = os.open(SHARED_MEMORY / Path(name).name, os.O_RDWR | os.O_NOFOLLOW)
        try:
            memory = mmap.mmap(descriptor, num_buffers * self._bucket_bytes)
        finally:
            os.close(descriptor)
        self._buffers = list(np.frombuffer(memory, np.uint8).reshape(num_buffers, self._bucket_bytes))

    def _fill(self, pairs: Iterable[tuple[str, Any]]) -> None:
        """Puts tensors into buffers; one is filled again once the receiver has said that it is read."""
        free, used = deque(range(len(self._buffers))), 0
        pieces: list[list[Any]] = []
        for name, dtype, shape, data in _tensors(pairs):
            offset = 0
            while offset < len(data) or offset == 0:
                size = min(len(data) - offset, self._bucket_bytes - used)
                self._buffers[free[0]][used : used + size] = data[offset : offset + size]
                pieces.append([name, dtype, shape, offset, used, size])
                used, offset = used + size, offset + size
                if used == self._bucket_bytes:
                    self._pass_on(free, pieces)
                    pieces, used = [], 0
                if size == 0:
                    break
        if pieces:
            self._pass_on(free, pieces)
        while len(free) < len(self._buffers):
            free.append(self._answer("ack")["buffer"])

    def _pass_on(self, free: "deque[int]", pieces: list[list[Any]]) -> None:
        """The first free buffer, which is filled; waits until another one is free."""
        self._tell({"type": "bucket", "buffer": free.popleft(), "pieces": pieces})
        if not free:
            free.append(self._answer("ack")["buffer"])

    def _ask(self, message: dict[str, Any], kind: str) -> dict[str, Any]:
        self._tell(message)
        return self._answer(kind)

    def _tell(self, message: dict[str, Any]) -> None:
        assert self._connection is not None
        try:
            send(self._connection, message)
        except ConnectionError:
            while True:
                self._answer("ack")  # behind which is the reason that the receiver has left for

    def _answer(self, kind: str) -> dict[str, Any]:
        assert self._connection is not None
        answer = receive(self._connection)
        if answer["type"] == "error":
            raise WeightSendError(str(answer.get("message")))
        if answer["type"] != kind:
            raise ProtocolError(f"expected {kind}, not {answer['type']}")
        return answer


def _tensors(pairs: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str, list[int], np.ndarray]]:
    """Name, dtype, shape and bytes of each."""
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise WeightSendError(f"expected a name and a tensor, not a {type(pair).__name__}") from None
        if not isinstance(name, str):
            raise WeightSendError(f"the name of a tensor must be a text, not {name!r}")
        try:
            dtype, array = _bits(name, value) if isinstance(value, tuple) else host_array(name, value)
        except ValueError as error:
            raise WeightSendError(str(error)) from error
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        yield name, dtype, list(array.shape), array.reshape(-1).view(np.uint8)


def _bits(name: str, pair: tuple[Any, ...]) -> tuple[str, np.ndarray]:
    if len(pair) == 2 and pair[0] == "bfloat16" and isinstance(pair[1], np.ndarray) and pair[1].dtype.str[1:] in _BITS:
        return "bfloat16", pair[1]
    raise ValueError(f"{name!r} must be a tensor, or a pair of 'bfloat16' and an array of its bits (uint16)")
