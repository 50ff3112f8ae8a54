"""Worker processes as the one that they work for sees them: started, told what to do, watched, and ended."""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from mindgen import environment
from mindgen.errors import WorkerError
from mindgen.parallel.channel import SIGN_OF_LIFE, SOCKET, Channel, listen
from mindgen.parallel.liveness import give_up_the_still, how_ended

_CONNECT_SECONDS = 60.0
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_LOG_LINES = 8


class _Worker:
    """One worker, and whoever waits for an answer of it; process is set if it is a child of this one."""

    def __init__(
        self, kind: str, rank: int, process: "subprocess.Popen[bytes] | None" = None, log: Path | None = None
    ) -> None:
        self.kind = kind
        self.rank = rank
        self.process = process
        self.process_id = 0
        self.channel: Channel | None = None
        self.error: WorkerError | None = None
        self._log = log
        self._is_set_up = False
        self._why_given_up: str | None = None
        self._calls: dict[int, Future[Any]] = {}
        self._numbers = count()
        self._lock = threading.Lock()  # of the calls and the error

    def tell(self, name: str, *arguments: Any) -> None:
        self._send(None, name, arguments)

    def call(self, name: str, *arguments: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        number = next(self._numbers)
        with self._lock:
            if self.error is not None:
                raise self.error
            self._calls[number] = future
        self._send(number, name, arguments)
        return future

    def receive(self, on_message: Callable[[Any], None], on_end: Callable[[WorkerError], None]) -> None:
        """The life of the thread that waits for answers, for messages that answer nothing, and for the end."""
        assert self.channel is not None
        try:
            while True:
                number, result, error = self.channel.receive()
                if number is None:
                    on_message(result)
                    continue
                with self._lock:
                    future = self._calls.pop(number)
                if error is None:
                    future.set_result(result)
                else:
                    future.set_exception(error)
        except EOFError:
            error = self.ended()
            on_end(error)
            with self._lock:
                self.error = error
                calls, self._calls = self._calls, {}
            for future in calls.values():
                future.set_exception(error)

    def is_busy(self) -> bool:
        """Whether it owes an answer; what it is told without one shows by a call that comes after that."""
        with self._lock:
            if self._calls or self.error is not None or not self._is_set_up:
                return bool(self._calls)
        with suppress(WorkerError):  # which its thread has noticed as well
            self.call(SIGN_OF_LIFE)
        return True

    def give_up(self, why: str) -> None:
        self._why_given_up = why
        if self.process is not None:
            self.process.kill()
        assert self.channel is not None
        self.channel.close()

    def ended(self) -> WorkerError:
        """Why it is gone: how its process ended, and the last lines that it wrote."""
        how = self._why_given_up or "has ended"
        if self.process is not None:
            how = f"(process {self.process.pid}) {self._why_given_up or how_ended(self.process, _END_SECONDS)}"
        lines = self._log.read_text(errors="replace").splitlines() if self._log and self._log.is_file() else []
        written = "".join(f"\n  {line}" for line in lines[-_LOG_LINES:])
        return WorkerError(f"{self.kind} {self.rank} {how}" + (f"; it wrote last:{written}" if written else ""))

    def _send(self, number: int | None, name: str, arguments: tuple[Any, ...]) -> None:
        assert self.channel is not None
        try:
            self.channel.send((number, name, arguments))
        except OSError as error:
            raise self.error or self.ended() from error
        self._is_set_up = True


class Workers:
    """Workers 1 to size - 1, connected; number 0 is this process.

    Attributes:
        error: of the first one that has ended before its time.
    """

    def __init__(self, workers: list[_Worker], folder: Path | None) -> None:
        self._workers = workers
        self._state = _State()
        self._threads: list[threading.Thread] = []
        self._end = weakref.finalize(self, _end, workers, folder, self._state, self._threads)

    @classmethod
    def start(cls, kind: str, module: str, size: int) -> "Workers":
        """Starts their processes.

        Args:
            kind: what messages call them.
            module: what they run, with the folder of the socket and their number as arguments.

        Raises:
            WorkerError: one ends before it has connected.
        """
        folder = Path(tempfile.mkdtemp(prefix="mindgen-"))  # which nobody else may enter
        workers: list[_Worker] = []
        started = cls(workers, folder)
        with listen(folder / SOCKET) as listener:
            for rank in range(1, size):
                log = folder / f"{kind}_{rank}.log"
                with log.open("wb") as output:
                    command = [sys.executable, "-m", module, str(folder), str(rank)]
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env=environment.for_child({}, {}),
                    )
                workers.append(_Worker(kind, rank, process, log))
            started._accept(listener)
        return started

    @classmethod
    def await_launched(cls, size: int, folder: Path) -> "Workers":
        """Waits for processes that a launcher has started to connect in the folder.

        Raises:
            WorkerError: one does not.
        """
        workers = [_Worker("rank", rank) for rank in range(1, size)]
        awaited = cls(workers, None)
        (folder / SOCKET).unlink(missing_ok=True)
        with listen(folder / SOCKET) as listener:
            awaited._accept(listener)
        (folder / SOCKET).unlink()
        return awaited

    @property
    def error(self) -> WorkerError | None:
        return self._state.error

    def watch(self, on_end: Callable[[str], None], timeout: float, on_message: Callable[[Any], None] = print) -> None:
        """From now on answers are heard, and who ends before its time is noticed, and `on_end` told why.

        Args:
            timeout: seconds in which a worker that owes an answer must use some processor time; 0 is any time.
        """
        for worker in self._workers:
            name, arguments = f"{worker.kind} {worker.rank}", (worker, self._state, on_message, on_end)
            self._threads.append(threading.Thread(target=_watch, args=arguments, name=name, daemon=True))
        if timeout > 0:
            watched = (self._workers, self._state.closing, timeout)
            self._threads.append(threading.Thread(target=give_up_the_still, args=watched, daemon=True))
        for thread in self._threads:
            thread.start()

    def send_files(self, rank: int, descriptors: list[int]) -> None:
        worker = self._workers[rank - 1]
        assert worker.channel is not None
        try:
            worker.channel.send_files(descriptors)
        except OSError as error:
            raise worker.ended() from error

    def tell(self, name: str, *arguments: Any) -> None:
        """Has all of them do something; should one fail, the next step raises its error."""
        for worker in self._workers:
            worker.tell(name, *arguments)

    def tell_one(self, rank: int, name: str, *arguments: Any) -> None:
        self._workers[rank - 1].tell(name, *arguments)

    def call(self, name: str, *arguments: Any) -> "list[Future[Any]]":
        """As `tell`, but with answers."""
        return [worker.call(name, *arguments) for worker in self._workers]

    def call_each(self, name: str, arguments: list[tuple[Any, ...]]) -> "list[Future[Any]]":
        """As `call`, with other arguments for each of them."""
        return [worker.call(name, *each) for worker, each in zip(self._workers, arguments, strict=True)]

    def close(self) -> None:
        """Ends them; returns when they are gone."""
        self._end()

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(_LOOK_SECONDS)
        missing = {worker.rank: worker for worker in self._workers}
        deadline = time.monotonic() + _CONNECT_SECONDS
        while missing:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                self._check_missing(list(missing.values()), deadline)
                continue
            connection.settimeout(None)
            channel = Channel(connection)
            with suppress(EOFError):  # that it is gone shows in the next turn
                rank, process_id = channel.receive()
                worker = missing.pop(rank)
                worker.channel, worker.process_id = channel, process_id

    def _check_missing(self, missing: list[_Worker], deadline: float) -> None:
        gone = next((each for each in missing if each.process is not None and each.process.poll() is not None), None)
        if gone is not None:
            self.close_after(gone.ended())
        if time.monotonic() > deadline:
            name = f"{missing[0].kind} {missing[0].rank}"
            self.close_after(WorkerError(f"{name} has not come within {_CONNECT_SECONDS:.0f} seconds"))

    def close_after(self, error: WorkerError) -> None:
        self.close()
        raise error


class _State:
    """What the threads that watch share with whoever ends the workers."""

    def __init__(self) -> None:
        self.error: WorkerError | None = None
        self.closing = threading.Event()


def wait_for(futures: "list[Future[Any]]") -> list[Any]:
    """The answers; raises the first error of any, without waiting for the others."""
    done, _ = wait_for_futures(futures, return_when=FIRST_EXCEPTION)
    for future in done:
        future.result()
    return [future.result() for future in futures]


def _watch(worker: _Worker, state: _State, on_message: Callable[[Any], None], on_end: Callable[[str], None]) -> None:
    def note_end(error: WorkerError) -> None:
        if not state.closing.is_set():
            state.error = state.error or error
            on_end(str(error))

    worker.receive(on_message, note_end)


def _end(workers: list[_Worker], folder: Path | None, state: _State, threads: list[threading.Thread]) -> None:
    state.closing.set()
    for worker in workers:
        if worker.channel is not None:
            worker.channel.close()
    processes = [worker.process for worker in workers if worker.process is not None]
    for worker in workers:
        if worker.channel is None and worker.process is not None:  # it may not have come to listen yet
            worker.process.kill()
    for process in processes:
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(_END_SECONDS)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
