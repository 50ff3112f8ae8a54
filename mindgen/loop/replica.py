"""A replica of a model: a process that serves its share of the prompts with an engine of its own.

    python -m mindgen.loop.replica RENDEZVOUS NUMBER

It ends with the process that started it.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.engine.config import EngineConfig
from mindgen.errors import MessageError, MindgenError, WorkerError
from mindgen.loop.request_reader import CheckedRequest
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, connect
from mindgen.parallel.messages import Answer, Arrival, Call

if TYPE_CHECKING:
    from mindgen.llm import LLM
    from mindgen.loop.stream import ChunkStream

_CONNECT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ReplicaHost:
    """What the machine of a replica has for it: the arguments of LLM that are paths, and its share of the cores."""

    model: str
    adapters: str | dict[str, str] | None
    checkpoint: str | None
    cores: list[int] | None
    num_threads: int


@dataclass(frozen=True, slots=True)
class ReplicaSetup:
    """What all replicas have in common; arguments of LLM."""

    dtype: str
    config: EngineConfig
    on_missing_adapter: str


# What the first process may ask for, and the types of the arguments.
_CALLS: dict[str, tuple[Any, ...]] = {
    "prepare": (ReplicaHost,),
    "set_up": (ReplicaSetup,),
    "open": (int, list[CheckedRequest], bool),
    "cancel": (int,),
    "add_adapter": (str, Path),
    "remove_adapter": (str,),
    "reset_prefix_cache": (),
    SIGN_OF_LIFE: (),
}


class _Replica:
    """Several calls may be open at once; their requests share the engine's steps."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self._streams: dict[int, ChunkStream] = {}

    def run(self) -> int:
        threading.Thread(target=self._receive, daemon=True).start()
        (host,) = self._calls.get().read(*_CALLS["prepare"])
        call = self._calls.get()
        try:
            llm = self._set_up(host, *call.read(*_CALLS["set_up"]))
        except Exception as error:
            traceback.print_exc()
            error = error if isinstance(error, MindgenError) else WorkerError(f"{type(error).__name__}: {error}")
            self._channel.send(Answer.of(call.number, None, error))
            return 1
        self._channel.send(Answer.of(call.number, None))
        while True:
            while not self._streams or not self._calls.empty():
                self._handle(llm, self._calls.get())
            for number in list(self._streams):
                self._advance(number)

    def _receive(self) -> None:
        try:
            while True:
                self._calls.put(self._channel.receive(Call))
        except EOFError:
            os._exit(0)
        except MessageError:
            traceback.print_exc()
            os._exit(1)

    def _set_up(self, host: ReplicaHost, setup: ReplicaSetup) -> "LLM":
        if host.cores is not None:
            os.sched_setaffinity(0, host.cores)
        from mindgen.llm import LLM  # starts MindSpore

        config = replace(setup.config, num_threads=host.num_threads)
        return LLM(host.model, host.adapters, setup.dtype, config, setup.on_missing_adapter, host.checkpoint)

    def _handle(self, llm: "LLM", call: Call) -> None:
        if call.name not in _CALLS:
            raise MessageError(f"a replica knows no {call.name!r}")
        arguments = call.read(*_CALLS[call.name])
        if call.name == "open":
            number, requests, is_streamed = arguments
            self._streams[number] = llm.stream_requests(requests, is_streamed)
        elif call.name == "cancel":
            stream = self._streams.pop(arguments[0], None)
            if stream is not None:
                stream.close()
        elif call.name == SIGN_OF_LIFE:
            self._channel.send(Answer.of(call.number, None))
        else:
            try:
                getattr(llm, call.name)(*arguments)
                self._channel.send(Answer.of(call.number, None))
            except MindgenError as error:
                self._channel.send(Answer.of(call.number, None, error))

    def _advance(self, number: int) -> None:
        stream = self._streams[number]
        chunks = stream.advance()
        if not stream.is_open:
            del self._streams[number]
        if chunks or not stream.is_open:
            self._channel.send(Answer.of(None, (number, chunks, not stream.is_open)))


def serve(rendezvous: Path, number: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    channel = connect(rendezvous / SOCKET, _CONNECT_SECONDS)
    channel.send(Arrival(number, os.getpid()))
    return _Replica(channel).run()


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
