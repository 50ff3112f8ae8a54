"""Several replicas of a model, of which this process is the first: each serves its share of a call's prompts."""

import os
import queue
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from mindgen.engine.config import EngineConfig
from mindgen.kernels import backend
from mindgen.outputs import TextChunk
from mindgen.parallel.workers import Workers, wait_for
from mindgen.stream import ChunkStream, Requests, Stream

_LOOK_SECONDS = 0.05
_Message = tuple[list[TextChunk], bool]  # and whether these are the last


class Replicas:
    """The replicas in other processes.

    Args:
        arguments: of LLM, for each of them.

    Raises:
        WorkerError: one has ended.
    """

    def __init__(self, size: int, arguments: dict[str, Any]) -> None:
        self.size = size
        self._numbers = count()
        self._open: dict[int, queue.SimpleQueue[_Message]] = {}
        self._workers = Workers.start("replica", "mindgen.replica", size)
        timeout = arguments["config"].worker_timeout
        self._workers.watch(lambda reason: None, timeout, partial(_receive, self._open))
        cores = sorted(os.sched_getaffinity(0))
        share = len(cores) // size
        setups = [
            (cores[number * share : (number + 1) * share] if share > 1 else None, arguments)
            for number in range(1, size)
        ]
        backend.available(arguments["config"].executor)  # compiled by one, before the others would have to wait for it
        self._ready = self._workers.call_each("set_up", setups)

    def wait_until_ready(self) -> None:
        try:
            wait_for(self._ready)
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What the LLM's method gives in each of them."""
        return wait_for(self._workers.call(name, *arguments))

    def open(self, replica: int, requests: Requests, is_streamed: bool) -> int:
        """The number of a call that the replica serves from now on."""
        number = next(self._numbers)
        self._open[number] = queue.SimpleQueue()
        self._workers.tell_one(replica, "open", number, *requests, is_streamed)
        return number

    def read(self, call: int, seconds: float) -> tuple[list[TextChunk], bool]:
        """Chunks of a call, and whether they are its last; none if none come within so many seconds."""
        try:
            return self._open[call].get(timeout=seconds) if seconds > 0 else self._open[call].get_nowait()
        except queue.Empty:
            if self._workers.error is not None:
                raise self._workers.error from None
            return [], False

    def end(self, replica: int, call: int, is_cancelled: bool) -> None:
        del self._open[call]
        if is_cancelled and self._workers.error is None:
            self._workers.tell_one(replica, "cancel", call)

    def close(self) -> None:
        self._workers.close()


def _receive(opened: "dict[int, queue.SimpleQueue[_Message]]", message: tuple[int, list[TextChunk], bool]) -> None:
    call, chunks, is_last = message
    waiting = opened.get(call)
    if waiting is not None:  # nobody waits for what is left of a call that was cancelled
        waiting.put((chunks, is_last))


class ReplicatedStream(ChunkStream):
    """As a Stream, with the requests shared out in their order, as evenly as they come."""

    def __init__(self, replicas: Replicas, own: Stream, first: int, others: list[Requests], is_streamed: bool) -> None:
        self._replicas = replicas
        self._own = own
        self._calls: dict[int, tuple[int, int]] = {}  # replica: call, index of its first prompt
        for replica, requests in enumerate(others, start=1):
            if requests.prompts:
                self._calls[replica] = replicas.open(replica, requests, is_streamed), first
            first += len(requests.prompts)

    @property
    def is_open(self) -> bool:
        return self._own.is_open or bool(self._calls)

    def advance(self) -> list[TextChunk]:
        """What a step here brings, and what has come from the others meanwhile."""
        chunks = self._own.advance() if self._own.is_open else []
        for replica, (call, first) in list(self._calls.items()):
            seconds = 0.0 if self._own.is_open or chunks else _LOOK_SECONDS
            arrived, is_last = self._replicas.read(call, seconds)
            chunks += [replace(chunk, index=first + chunk.index) for chunk in arrived]
            if is_last:
                del self._calls[replica]
                self._replicas.end(replica, call, is_cancelled=False)
        return chunks

    def close(self) -> None:
        self._own.close()
        for replica, (call, _) in self._calls.items():
            self._replicas.end(replica, call, is_cancelled=True)
        self._calls = {}


def replica_config(config: EngineConfig) -> EngineConfig:
    """The limits of each replica: they share the threads and, where it is a share, the free memory."""
    size = config.data_parallel_size
    threads = config.num_threads or len(os.sched_getaffinity(0))
    memory = config.memory_utilization
    return replace(
        config,
        data_parallel_size=1,
        num_threads=max(1, threads // size),
        memory_utilization=memory if isinstance(memory, str) else memory / size,
    )
