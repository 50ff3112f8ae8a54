"""Several replicas of a model, of which this process is the first: each serves its share of a call's prompts."""

import os
import queue
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any

from mindgen.engine.config import EngineConfig
from mindgen.kernels import backend
from mindgen.loop.engine_client import EngineClient
from mindgen.loop.local_replicas import start_replicas
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.replica import ReplicaSetup
from mindgen.loop.request_reader import CheckedRequest
from mindgen.loop.stream import ChunkStream, Stream
from mindgen.outputs import TextChunk
from mindgen.parallel.nodes import Nodes
from mindgen.parallel.shares import even_shares
from mindgen.parallel.workers import wait_for

_LOOK_SECONDS = 0.05
_Message = tuple[list[TextChunk], bool]  # and whether these are the last


class Replicas:
    """The replicas in other processes.

    Args:
        local: the numbers of those on this machine, this process's own first.
        nodes: the machines that have more; None if there are no others.

    Raises:
        WorkerError: one has ended.
    """

    def __init__(self, local: range, nodes: Nodes | None, files: ModelFiles, setup: ReplicaSetup) -> None:
        elsewhere = None if nodes is None else nodes.lines
        self.size = len(local) + len(elsewhere or {})
        self._numbers = count()
        self._open: dict[int, queue.SimpleQueue[_Message]] = {}
        self._workers = start_replicas(local[1:], len(local), files, setup.config.num_threads, elsewhere)
        messages = tuple[int, list[TextChunk], bool]
        timeout = setup.config.worker_timeout
        self._workers.watch(lambda reason: None, timeout, partial(_receive, self._open), messages)
        backend.available(setup.config.executor)  # compiled by one, before the others would have to wait for it
        self._ready = self._workers.call("set_up", setup)

    def wait_until_ready(self) -> None:
        try:
            wait_for(self._ready)
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """What the LLM's method gives in each of them."""
        return wait_for(self._workers.call(name, *arguments))

    def open(self, replica: int, requests: list[CheckedRequest], is_streamed: bool) -> int:
        """The number of a call that the replica serves from now on."""
        number = next(self._numbers)
        self._open[number] = queue.SimpleQueue()
        self._workers.tell_one(replica, "open", number, requests, is_streamed)
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

    def __init__(
        self, replicas: Replicas, client: EngineClient, requests: list[CheckedRequest], is_streamed: bool
    ) -> None:
        self._replicas = replicas
        own, *others = even_shares(len(requests), replicas.size)
        self._own = Stream(client, requests[own.start : own.stop], is_streamed)
        self._calls: dict[int, tuple[int, int]] = {}  # replica: call, index of its first prompt
        for replica, share in enumerate(others, start=1):
            if share:
                call = replicas.open(replica, requests[share.start : share.stop], is_streamed)
                self._calls[replica] = call, share.start

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


def replica_config(config: EngineConfig, num_local: int) -> EngineConfig:
    """The limits of each replica: those of a machine share its threads and, where it is a share, the free memory."""
    threads = config.num_threads or len(os.sched_getaffinity(0))
    memory = config.memory_utilization
    return replace(
        config,
        data_parallel_size=1,
        nnodes=1,
        node_rank=0,
        num_threads=max(1, threads // num_local),
        memory_utilization=memory if isinstance(memory, str) else memory / num_local,
    )
