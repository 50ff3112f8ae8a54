"""The chunks of text of one call's requests, for whoever reads them."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from contextlib import closing
from typing import Protocol

from mindgen.loop.engine_loop import IndexedRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.subscription import Subscription
from mindgen.outputs import TextChunk

_SHORT = 2000  # characters that are tokenized before another thread would have begun


class Server(Protocol):
    """Serves requests: one EngineLoop, or a Router over several."""

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None: ...
    def abort(self, subscription: Subscription) -> None: ...


class ChunkStream:
    """Chunks of text, for `for` and `async for`; a loop that is left, and a stream that nobody has any more, calls off
    what has not ended. The requests are sent when the first chunk is asked for.

    Args:
        is_streamed: somebody waits for the text as it comes; else a request's chunks come at its end.
    """

    def __init__(self, server: Server, requests: Sequence[CheckedRequest], is_streamed: bool = True) -> None:
        self._server = server
        self._unsent: Sequence[CheckedRequest] = requests
        self._is_streamed = is_streamed
        self._subscription = Subscription(len(requests))
        self._end = weakref.finalize(self, server.abort, self._subscription)

    @property
    def is_open(self) -> bool:
        return self._subscription.is_open

    def advance(self) -> list[TextChunk]:
        """What the next step that has something for it brings, in the order of the prompts; none at the end."""
        self._send()
        return self._subscription.take()

    def close(self) -> None:
        """Calls off what has not ended."""
        self._end()

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def __iter__(self) -> Iterator[TextChunk]:
        with closing(self.steps()) as steps:
            for chunks in steps:
                yield from chunks

    async def __aiter__(self) -> AsyncIterator[TextChunk]:
        try:
            if _take_time(self._unsent):
                await asyncio.get_running_loop().run_in_executor(None, self._send)
            self._send()
            while self.is_open:
                for chunk in await self._subscription.take_async():
                    yield chunk
        finally:
            self.close()

    def steps(self) -> Generator[list[TextChunk], None, None]:
        """The chunks of each step together."""
        try:
            while self.is_open:
                yield self.advance()
        finally:  # also when the caller stops listening
            self.close()

    def _send(self) -> None:
        requests, self._unsent = self._unsent, ()
        if requests:
            self._server.submit([*enumerate(requests)], self._subscription, self._is_streamed)
            if self._subscription.is_closed:  # while this thread was at it
                self._server.abort(self._subscription)


def _take_time(requests: Sequence[CheckedRequest]) -> bool:
    """Whether an event loop should not be kept waiting until these are prepared."""
    is_guided = any(each.params.is_guided for each in requests)
    return is_guided or sum(len(each.prompt or "") for each in requests) > _SHORT
