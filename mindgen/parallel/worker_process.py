"""The life of a worker process, a rank's or a replica's: it does what it is told, in order, and answers.

It ends with the process that it works for: that one's end of the socket closes whatever happens to it.
"""

import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from mindgen.errors import MessageError, MindgenError, WorkerError
from mindgen.parallel.calls import RemoteCall
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, connect
from mindgen.parallel.messages import Answer, Arrival, Call

_CONNECT_SECONDS = 60.0


class WorkerProcess:
    """What the other process says, and what it is told.

    Attributes:
        files: descriptors that it has handed over.
    """

    def __init__(self, channel: Channel, takes_files: bool) -> None:
        self._channel = channel
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        self.files = channel.receive_files() if takes_files else []
        threading.Thread(target=self._receive, daemon=True).start()

    def next_call(self) -> Call:
        """Waits for it."""
        return self._calls.get()

    def execute(self, call: Call, calls: Mapping[str, RemoteCall], target: object) -> None:
        """Has the target do it; the result is the answer, a Future's once it is there.

        Raises:
            MessageError: there is no such call, or its arguments are of other types.
            Exception: what the target raises; nothing has been answered then.
        """
        if call.name == SIGN_OF_LIFE:
            self.answer(call.number)
            return
        if call.name not in calls:
            raise MessageError(f"a worker knows no {call.name!r}")
        result = getattr(target, call.name)(*call.read(*calls[call.name].argument_types))
        if isinstance(result, Future):
            result.add_done_callback(partial(self._answer_later, call.number))
        else:
            self.answer(call.number, result)

    def answer(self, number: int | None, result: Any = None) -> None:
        if number is not None:
            self._channel.send(Answer.of(number, result))

    def refuse(self, number: int | None, error: BaseException) -> None:
        """An error for an answer, as the other process raises it."""
        if number is not None:
            known = error if isinstance(error, MindgenError) else WorkerError(f"{type(error).__name__}: {error}")
            self._channel.send(Answer.of(number, None, known))

    def say(self, message: Any) -> None:
        """Something that answers nothing."""
        self._channel.send(Answer.of(None, message))

    def _answer_later(self, number: int | None, done: "Future[Any]") -> None:
        error = done.exception()
        if error is None:
            self.answer(number, done.result())
        else:
            self.refuse(number, error)

    def _receive(self) -> None:
        try:
            while True:
                self._calls.put(self._channel.receive(Call))
        except EOFError:
            os._exit(0)  # in whatever the main thread waits
        except MessageError:
            traceback.print_exc()
            os._exit(1)


def join_as_worker(rendezvous: Path, number: int, takes_files: bool) -> WorkerProcess | None:
    """Connects with the process that listens in the folder; None, and a line that says so, if nobody does."""
    try:
        channel = connect(rendezvous / SOCKET, _CONNECT_SECONDS)
    except TimeoutError as error:
        print(f"mindgen: worker {number}: {error}: the process that it works for has not come", file=sys.stderr)
        return None
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process to handle
    channel.send(Arrival(number, os.getpid()))
    return WorkerProcess(channel, takes_files)
