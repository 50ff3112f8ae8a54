"""What comes of the requests of one call, on its way from whoever computes it to whoever reads it."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeAlias

from mindgen.outputs import TextChunk

_MOST_STEPS = 256


# What a coroutine waits for.
Waiter: TypeAlias = asyncio.Future[None]


class Subscription:
    """Bounded: where a reader lags behind, later steps are joined into one, text to text, so nothing is lost and nobody
    waits for the reader.

    Args:
        num_requests: that will have a last chunk each.
        most_steps: whose chunks wait apart from each other.

    Attributes:
        on_last: is told the index of each request that has ended.
    """

    def __init__(self, num_requests: int, most_steps: int = _MOST_STEPS) -> None:
        self._lock = threading.RLock()  # as garbage that is collected under it may close the same one
        self._ready = threading.Condition(self._lock)
        self._steps: deque[list[TextChunk]] = deque()
        self._most_steps = most_steps
        self._num_open = num_requests
        self._error: BaseException | None = None
        self._waiter: Waiter | None = None
        self.is_closed = False
        self.on_last: Callable[[int], None] | None = None

    @property
    def is_unfinished(self) -> bool:
        """Whether a request has not ended yet."""
        return self._num_open > 0

    @property
    def is_open(self) -> bool:
        """Whether there is something to read, or will be."""
        return not self.is_closed and (self._num_open > 0 or bool(self._steps))

    def put(self, chunks: list[TextChunk]) -> Waiter | None:
        """What a step brings; returns the coroutine that is to be woken."""
        ended = [chunk.index for chunk in chunks if chunk.output is not None]
        with self._lock:
            if self.is_closed or not chunks:
                return None
            if len(self._steps) < self._most_steps:
                self._steps.append(chunks)
            else:
                self._steps[-1] = _joined(self._steps[-1], chunks)
            self._num_open -= len(ended)
            self._ready.notify()
            waiter, self._waiter = self._waiter, None
        if self.on_last is not None:
            for index in ended:
                self.on_last(index)
        return waiter

    def fail(self, error: BaseException) -> Waiter | None:
        """Nothing more comes: the reader gets this error after what is there already."""
        with self._lock:
            self._error = error
            self._ready.notify()
            waiter, self._waiter = self._waiter, None
            return waiter

    def take(self) -> list[TextChunk]:
        """The chunks of the next step, for which this waits; none if there is nothing left.

        Raises:
            BaseException: what has ended the requests.
        """
        with self._lock:
            while self.is_open and not self._steps and self._error is None:
                self._ready.wait()
            return self._next()

    async def take_async(self) -> list[TextChunk]:
        """As `take`, without a thread that waits; for one coroutine at a time."""
        loop = asyncio.get_running_loop()
        while True:
            with self._lock:
                if self._steps or self._error is not None or not self.is_open:
                    return self._next()
                waiter = self._waiter = loop.create_future()
            await waiter

    def close(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            self.is_closed = True
            self._steps.clear()
            self._ready.notify()
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            wake([waiter])

    def _next(self) -> list[TextChunk]:
        if self._steps:
            return self._steps.popleft()
        if self._error is not None:
            self.is_closed = True
            raise self._error
        return []


def wake(waiters: list[Waiter]) -> None:
    """Wakes coroutines from another thread, those of one event loop together."""
    loops: dict[asyncio.AbstractEventLoop, list[Waiter]] = {}
    for waiter in waiters:
        loops.setdefault(waiter.get_loop(), []).append(waiter)
    for loop, own in loops.items():
        with suppress(RuntimeError):  # a loop that is closed has nobody who waits
            loop.call_soon_threadsafe(_end_all, own)


def _end_all(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        if not waiter.done():  # as it is where its coroutine has been called off
            waiter.set_result(None)


def _joined(earlier: list[TextChunk], later: list[TextChunk]) -> list[TextChunk]:
    """The chunks of two steps as if they had been one."""
    chunks = list(earlier)
    places = {_source(chunk): place for place, chunk in enumerate(chunks) if chunk.output is None}
    for chunk in later:
        place = places.get(_source(chunk)) if chunk.output is None else None
        if place is None:
            chunks.append(chunk)
            continue
        before = chunks[place]
        chunks[place] = replace(
            before,
            text=before.text + chunk.text,
            token_ids=before.token_ids + chunk.token_ids,
            logprobs=None if before.logprobs is None else before.logprobs + (chunk.logprobs or []),
        )
    return chunks


def _source(chunk: TextChunk) -> tuple[int, int, str | None, int, int | None]:
    """Chunks of the same output and the same weights can be one."""
    return chunk.index, chunk.output_index, chunk.adapter_digest, chunk.weight_version, chunk.adapter_version
