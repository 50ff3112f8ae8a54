"""Node 0's connection with another node, as lines to the workers there."""

import queue
import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from mindgen.errors import MessageError
from mindgen.parallel.channel import Channel
from mindgen.parallel.encoding import decode, encode
from mindgen.parallel.messages import Failure, Farewell, Parcel


class WorkerLine:
    """As a Channel, to one worker on another node."""

    def __init__(self, connection: "NodeConnection", worker: int) -> None:
        self._connection = connection
        self._worker = worker
        self._arrived: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def send(self, message: Any) -> None:
        self._connection.send(self._worker, encode(message))

    def receive(self, kind: Any) -> Any:
        data = self._arrived.get()
        if data is None:
            raise EOFError
        return decode(data, kind)

    def put(self, data: bytes | None) -> None:
        """What has come for `receive`; None when nothing comes any more."""
        self._arrived.put(data)

    def close(self) -> None:
        """Whoever receives has an EOFError now; the connection stays, for the farewell."""
        self.put(None)

    @property
    def reason(self) -> str:
        """Why nothing comes any more."""
        return self._connection.reason


class NodeConnection:
    """The workers of a node, which all have this one connection.

    Attributes:
        reason: why it has ended.
    """

    def __init__(self, channel: Channel, node: int, address: str, workers: Iterable[int]) -> None:
        self.lines = {worker: WorkerLine(self, worker) for worker in workers}
        self.reason = ""
        self._channel = channel
        self._name = f"node {node} ({address})"
        threading.Thread(target=self._receive, name=self._name, daemon=True).start()

    def send(self, worker: int, data: bytes) -> None:
        self._channel.send(Parcel(worker, data))

    def close(self, exit_code: int, reason: str) -> None:
        """Tells the node that all is over."""
        with suppress(OSError):
            self._channel.send(Farewell(exit_code, reason))
        self._channel.close()

    def _receive(self) -> None:
        try:
            while not self.reason:
                message = self._channel.receive(Parcel | Failure)
                if isinstance(message, Failure):
                    self.reason = f"{self._name}: {message.reason}"
                elif message.worker in self.lines:
                    self.lines[message.worker].put(message.message)
        except EOFError as error:
            self.reason = f"{self._name} is gone: the connection has ended ({error})"
        except MessageError as error:
            self.reason = f"{self._name}: {error}"
        for line in self.lines.values():
            line.put(None)
