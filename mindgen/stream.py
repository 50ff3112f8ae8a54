"""The requests of one call, from their prompts to the last chunk of text."""

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

from mindgen.engine_client import EngineClient
from mindgen.errors import MindgenError, QueueFullError, RequestError
from mindgen.open_request import OpenRequest
from mindgen.outputs import RequestOutput, TextChunk
from mindgen.parallel.shares import even_shares
from mindgen.sampling_params import SamplingParams


class Requests(NamedTuple):
    """The prompts of one call, each with its parameters and its adapter."""

    prompts: list[Any]
    sampling_params: list[SamplingParams]
    adapter_ids: list[str | None]

    @classmethod
    def read(cls, prompts: Any, sampling_params: Any, adapter_ids: Any) -> "Requests":
        """Of one prompt or several, with one value for all of them or one for each."""
        is_single = isinstance(prompts, (str, Mapping)) or (len(prompts) > 0 and isinstance(prompts[0], int))
        prompts = [prompts] if is_single else list(prompts)
        params = _for_each(prompts, sampling_params or SamplingParams(), "sampling_params")
        return cls(prompts, params, _for_each(prompts, adapter_ids, "adapter_ids"))

    def share_out(self, count: int) -> list["Requests"]:
        """In their order, the first ones with one more where they do not divide."""
        slices = [slice(share.start, share.stop) for share in even_shares(len(self.prompts), count)]
        return [Requests(self.prompts[each], self.sampling_params[each], self.adapter_ids[each]) for each in slices]


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

    def __init__(self, client: EngineClient, requests: Requests, is_streamed: bool = True) -> None:
        self._client = client
        self._is_streamed = is_streamed
        self._unsent = deque(enumerate(zip(*requests, strict=True)))
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
            index, (prompt, params, adapter_id) = self._unsent[0]
            try:
                self._open[index] = self._client.submit(index, prompt, params, adapter_id, self._is_streamed)
            except QueueFullError:
                if not self._open and not refused:
                    self._client.step([])  # those of other streams have to move on
                break
            except MindgenError as error:
                text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
                output = RequestOutput.failed(index, text if isinstance(text, str) else None, adapter_id, error)
                refused.append(TextChunk(index, "", output))
            self._unsent.popleft()
        return refused


def _for_each(prompts: list[str], values: Any, name: str) -> list[Any]:
    """One value for each prompt, from a single one or a list."""
    if not isinstance(values, (list, tuple)):
        return [values] * len(prompts)
    if len(values) != len(prompts):
        raise RequestError(f"{name} has {len(values)} entries for {len(prompts)} prompts")
    return list(values)
