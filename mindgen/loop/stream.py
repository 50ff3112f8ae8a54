"""The requests of one call, from their prompts to the last chunk of text."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

from mindgen.errors import QueueFullError, as_request_error
from mindgen.loop.engine_client import EngineClient
from mindgen.loop.open_request import OpenRequest
from mindgen.loop.request_reader import CheckedRequest
from mindgen.outputs import RequestOutput, TextChunk


class ChunkStream(ABC):
    """Chunks of text, for `for` and `async for`; a loop that is left calls off what has not ended.

    Streams that are read at the same time, in threads or coroutines, share their steps.
    """

    @property
    @abstractmethod
    def is_open(self) -> bool: ...

    @abstractmethod
    def advance(self) -> list[TextChunk]:
        """What a step brings."""

    @abstractmethod
    def close(self) -> None:
        """Calls off what has not ended."""

    async def aclose(self) -> None:
        """As `close`, for `contextlib.aclosing`."""
        self.close()

    def __iter__(self) -> Iterator[TextChunk]:
        with closing(self.steps()) as steps:
            for chunks in steps:
                yield from chunks

    async def __aiter__(self) -> AsyncIterator[TextChunk]:
        loop = asyncio.get_running_loop()
        try:
            with ThreadPoolExecutor(1) as worker:  # whose step has ended when it is left
                while self.is_open:
                    for chunk in await loop.run_in_executor(worker, self.advance):
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


class Stream(ChunkStream):
    """The requests of one call.

    Args:
        is_streamed: somebody waits for the text as it comes; else a request's chunks come at its end.
    """

    def __init__(self, client: EngineClient, requests: Sequence[CheckedRequest], is_streamed: bool = True) -> None:
        self._client = client
        self._is_streamed = is_streamed
        self._unsent = deque(enumerate(requests))
        self._open: dict[int, OpenRequest] = {}

    @property
    def is_open(self) -> bool:
        return bool(self._unsent or self._open)

    def advance(self) -> list[TextChunk]:
        """What a step brings, in the order of the prompts."""
        chunks = self._send()
        if self._open:
            self._client.step(list(self._open.values()))
        for index in sorted(self._open):
            opened = self._open[index]
            while opened.chunks:
                chunk = opened.chunks.popleft()
                chunks.append(chunk)
                if chunk.output is not None:
                    del self._open[index]
        return chunks

    def close(self) -> None:
        self._unsent.clear()
        for opened in self._open.values():
            self._client.cancel(opened)
        self._open = {}

    def _send(self) -> list[TextChunk]:
        """Passes on as many requests as the engine takes; the last chunks of those that it refuses."""
        refused: list[TextChunk] = []
        while self._unsent:
            index, request = self._unsent[0]
            try:
                self._open[index] = self._client.submit(index, request, self._is_streamed)
            except QueueFullError:
                if not self._open and not refused:
                    self._client.step([])  # those of other streams have to move on
                break
            except Exception as error:
                reason = as_request_error(error, "preparing the request")
                output = RequestOutput.failed(index, request.prompt, request.adapter_id, reason)
                refused.append(TextChunk(index, "", output))
            self._unsent.popleft()
        return refused
