"""One worker process, here or on another node, and whoever waits for an answer of it."""

import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from mindgen.errors import MessageError, WorkerError
from mindgen.parallel.channel import SIGN_OF_LIFE, Channel
from mindgen.parallel.encoding import decode
from mindgen.parallel.liveness import how_ended
from mindgen.parallel.messages import Answer, Call
from mindgen.parallel.node_connection import WorkerLine

_END_SECONDS = 5.0
_LOG_LINES = 8


class WorkerHandle:
    """How it is told what to do, and how it was started if it is this process's own.

    Attributes:
        line: once it is connected.
        error: once it has ended.
    """

    def __init__(
        self,
        kind: str,
        number: int,
        process: "subprocess.Popen[bytes] | None" = None,
        log: Path | None = None,
        line: WorkerLine | None = None,
    ) -> None:
        self.kind = kind
        self.number = number
        self.process = process
        self.process_id = 0
        self.line: Channel | WorkerLine | None = line
        self.error: WorkerError | None = None
        self._log = log
        self._is_set_up = False
        self._why_given_up: str | None = None
        self._calls: dict[int, tuple[Future[Any], Any]] = {}  # and the type of the result
        self._numbers = count()
        self._lock = threading.Lock()  # of the calls and the error

    @property
    def name(self) -> str:
        return f"{self.kind} {self.number}"

    @property
    def channel(self) -> Channel:
        """Of a worker on this machine."""
        assert isinstance(self.line, Channel)
        return self.line

    def tell(self, name: str, *arguments: Any) -> None:
        self._send(None, name, arguments)

    def call(self, name: str, *arguments: Any, result: Any = None) -> "Future[Any]":
        """As `tell`, but with an answer, of that type."""
        future: Future[Any] = Future()
        number = next(self._numbers)
        with self._lock:
            if self.error is not None:
                raise self.error
            self._calls[number] = future, result
        self._send(number, name, arguments)
        return future

    def receive(self, on_message: Callable[[Any], None], kind: Any, on_end: Callable[[WorkerError], None]) -> None:
        """The life of the thread that waits for answers, for messages that answer nothing, and for the end."""
        assert self.line is not None
        try:
            while True:
                answer: Answer = self.line.receive(Answer)
                if answer.number is None:
                    on_message(decode(answer.result, kind))
                    continue
                with self._lock:
                    future, result = self._calls.pop(answer.number)
                _settle(future, answer, result)
        except (EOFError, MessageError, KeyError) as error:
            self._end(self.ended() if isinstance(error, EOFError) else self._misspoken(error), on_end)

    def relay(self, on_message: Callable[[int, bytes], None], on_end: Callable[[WorkerError], None]) -> None:
        """As `receive`, of messages that are for somebody else."""
        try:
            while True:
                on_message(self.number, self.channel.receive_bytes())
        except (EOFError, MessageError) as error:
            self._end(self.ended() if isinstance(error, EOFError) else self._misspoken(error), on_end)

    def is_busy(self) -> bool:
        """Whether it owes an answer; what it is told without one shows by a call that comes after that."""
        with self._lock:
            if self._calls or self.error is not None or not self._is_set_up:
                return bool(self._calls)
        with suppress(WorkerError):  # which its thread has noticed as well
            self.call(SIGN_OF_LIFE)
        return True

    def give_up(self, why: str) -> None:
        """It ends with this reason."""
        self._why_given_up = why
        if self.process is not None:
            self.process.kill()
        assert self.line is not None
        self.line.close()

    def ended(self) -> WorkerError:
        """Why it is gone: how its process ended, and the last lines that it wrote."""
        if isinstance(self.line, WorkerLine):
            return WorkerError(self.line.reason)
        how = self._why_given_up or "has ended"
        if self.process is not None:
            how = f"(process {self.process.pid}) {self._why_given_up or how_ended(self.process, _END_SECONDS)}"
        lines = self._log.read_text(errors="replace").splitlines() if self._log and self._log.is_file() else []
        written = "".join(f"\n  {line}" for line in lines[-_LOG_LINES:])
        return WorkerError(f"{self.name} {how}" + (f"; it wrote last:{written}" if written else ""))

    def _misspoken(self, error: Exception) -> WorkerError:
        return WorkerError(f"{self.name} has answered what nobody asked for: {error}")

    def _end(self, error: WorkerError, on_end: Callable[[WorkerError], None]) -> None:
        on_end(error)
        with self._lock:
            self.error = error
            calls, self._calls = self._calls, {}
        for future, _ in calls.values():
            future.set_exception(error)

    def _send(self, number: int | None, name: str, arguments: tuple[Any, ...]) -> None:
        assert self.line is not None
        try:
            self.line.send(Call.of(number, name, arguments))
        except OSError as error:
            raise self.error or self.ended() from error
        self._is_set_up = self._is_set_up or name == "set_up"


def _settle(future: "Future[Any]", answer: Answer, kind: Any) -> None:
    """Gives an answer to who waits for it, of that type; raises MessageError where it is none, as who waits hears."""
    if answer.error is not None:
        future.set_exception(answer.error)
        return
    try:
        value = decode(answer.result, kind)
    except MessageError as error:
        future.set_exception(error)
        raise
    future.set_result(value)
