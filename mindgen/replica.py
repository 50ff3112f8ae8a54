"""A replica of a model: a process that serves its share of the prompts with an engine of its own.

    python -m mindgen.replica RENDEZVOUS NUMBER

It ends with the process that started it.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import MindgenError, WorkerError
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, connect

if TYPE_CHECKING:
    from mindgen.llm import LLM
    from mindgen.stream import ChunkStream

_CONNECT_SECONDS = 60.0


class _Replica:
    """Several calls may be open at once; their requests share the engine's steps."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._messages: queue.SimpleQueue[tuple[int | None, str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._streams: dict[int, ChunkStream] = {}

    def run(self) -> int:
        threading.Thread(target=self._receive, daemon=True).start()
        call, _, arguments = self._messages.get()
        try:
            llm = self._set_up(*arguments)
        except Exception as error:
            traceback.print_exc()
            error = error if isinstance(error, MindgenError) else WorkerError(f"{type(error).__name__}: {error}")
            self._channel.send((call, None, error))
            return 1
        self._channel.send((call, None, None))
        while True:
            while not self._streams or not self._messages.empty():
                self._handle(llm, *self._messages.get())
            for number in list(self._streams):
                self._advance(number)

    def _receive(self) -> None:
        try:
            while True:
                self._messages.put(self._channel.receive())
        except EOFError:
            os._exit(0)

    def _set_up(self, cores: list[int] | None, arguments: dict[str, Any]) -> "LLM":
        if cores is not None:
            os.sched_setaffinity(0, cores)
        from mindgen.llm import LLM  # starts MindSpore

        return LLM(**arguments)

    def _handle(self, llm: "LLM", call: int | None, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "open":
            number, *requests = arguments
            self._streams[number] = llm.stream(*requests)
        elif name == "cancel":
            stream = self._streams.pop(arguments[0], None)
            if stream is not None:
                stream.close()
        elif name == SIGN_OF_LIFE:
            self._channel.send((call, None, None))
        else:
            try:
                self._channel.send((call, getattr(llm, name)(*arguments), None))
            except MindgenError as error:
                self._channel.send((call, None, error))

    def _advance(self, number: int) -> None:
        stream = self._streams[number]
        chunks = stream.advance()
        if not stream.is_open:
            del self._streams[number]
        if chunks or not stream.is_open:
            self._channel.send((None, (number, chunks, not stream.is_open), None))


def serve(rendezvous: Path, number: int) -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one
    channel = connect(rendezvous / SOCKET, _CONNECT_SECONDS)
    channel.send((number, os.getpid()))
    return _Replica(channel).run()


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
