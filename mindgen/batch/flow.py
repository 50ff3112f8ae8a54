"""Requests in work: sent a few at a time, so that the engine never waits for some, and answered in whatever order."""

import queue
from collections.abc import Sequence

from mindgen.batch.row_request import RowRequest
from mindgen.loop.stream import Server
from mindgen.loop.subscription import Subscription, Waiter
from mindgen.outputs import RequestOutput, TextChunk

_Finished = tuple[RowRequest, RequestOutput]


class Flow:
    """Belongs to one thread.

    Attributes:
        num_rows: that are in work.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._finished: queue.SimpleQueue[_Finished | BaseException] = queue.SimpleQueue()
        self._calls: list[_Call] = []
        self.num_rows = 0

    def send(self, requests: Sequence[RowRequest]) -> None:
        self._calls = [call for call in self._calls if call.is_open]
        call = _Call(requests, self._finished)
        self._calls.append(call)
        self.num_rows += len(requests)
        self._server.submit([*enumerate(each.request for each in requests)], call, False)

    def take(self, seconds: float) -> list[_Finished]:
        """What has finished since the last time; waits for something for so long, if nothing has.

        Raises:
            MindgenError: what has ended all requests.
        """
        finished = []
        try:
            finished.append(self._finished.get(timeout=seconds))
            while True:
                finished.append(self._finished.get_nowait())
        except queue.Empty:
            pass
        for each in finished:
            if isinstance(each, BaseException):
                raise each
        self.num_rows -= len(finished)
        return finished  # type: ignore[return-value]

    def close(self) -> None:
        """Calls off what is in work."""
        for call in self._calls:
            if call.is_open:
                self._server.abort(call)
        self._calls = []


class _Call(Subscription):
    """Passes outputs on as they are finished, and keeps nothing."""

    def __init__(
        self, requests: Sequence[RowRequest], finished: "queue.SimpleQueue[_Finished | BaseException]"
    ) -> None:
        super().__init__(len(requests))
        self._requests = requests
        self._finished = finished

    def put(self, chunks: list[TextChunk]) -> Waiter | None:
        for chunk in chunks:
            if chunk.output is None or self.is_closed:
                continue
            self._num_open -= 1
            if self.on_last is not None:
                self.on_last(chunk.index)
            self._finished.put((self._requests[chunk.index], chunk.output))
        return None

    def fail(self, error: BaseException) -> Waiter | None:
        self._finished.put(error)
        return None
