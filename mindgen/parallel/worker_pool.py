"""Worker processes as the one that they work for sees them: started, told what to do, watched, and ended."""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future
from concurrent.futures import wait as wait_for_futures
from contextlib import suppress
from pathlib import Path
from typing import Any

from mindgen.errors import MessageError, WorkerError
from mindgen.parallel.channel import SOCKET, Channel, listen
from mindgen.parallel.liveness import end_stuck_workers
from mindgen.parallel.messages import Arrival
from mindgen.parallel.node_connection import WorkerLine
from mindgen.parallel.worker_handle import WorkerHandle
from mindgen.system import environment

_CONNECT_SECONDS = 60.0
_END_SECONDS = 5.0
_LOOK_SECONDS = 0.1


class WorkerPool:
    """Handles of workers, connected, those of this machine first.

    Attributes:
        error: of the first one that has ended before its time.
    """

    def __init__(self, workers: list[WorkerHandle], folder: Path | None) -> None:
        self._workers = workers
        self._state = _State()
        self._threads: list[threading.Thread] = []
        self._end = weakref.finalize(self, _end, workers, folder, self._state, self._threads)

    @classmethod
    def start(
        cls, kind: str, module: str, numbers: Iterable[int], elsewhere: Mapping[int, WorkerLine] | None = None
    ) -> "WorkerPool":
        """Starts processes on this machine.

        Args:
            kind: what messages call them.
            module: what they run, with the folder of the socket and their number as arguments.
            elsewhere: lines to those that other nodes start.

        Raises:
            WorkerError: one ends before it has connected.
        """
        folder = Path(tempfile.mkdtemp(prefix="mindgen-"))  # which nobody else may enter
        workers: list[WorkerHandle] = []
        started = cls(workers, folder)
        with listen(folder / SOCKET) as listener:
            for number in numbers:
                log = folder / f"{kind}_{number}.log"
                with log.open("wb") as output:
                    command = [sys.executable, "-m", module, str(folder), str(number)]
                    process = subprocess.Popen(
                        command,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        env=environment.for_child({}, {}),
                    )
                workers.append(WorkerHandle(kind, number, process, log))
            started._accept(listener)
        workers += [WorkerHandle(kind, number, line=line) for number, line in (elsewhere or {}).items()]
        return started

    @classmethod
    def await_launched(cls, kind: str, numbers: Iterable[int], folder: Path) -> "WorkerPool":
        """Waits for processes that a launcher has started to connect in the folder.

        Raises:
            WorkerError: one does not.
        """
        workers = [WorkerHandle(kind, number) for number in numbers]
        awaited = cls(workers, None)
        (folder / SOCKET).unlink(missing_ok=True)
        with listen(folder / SOCKET) as listener:
            awaited._accept(listener)
        (folder / SOCKET).unlink()
        return awaited

    @property
    def error(self) -> WorkerError | None:
        return self._state.error

    def watch(
        self,
        on_end: Callable[[int, str], None],
        timeout: float,
        on_message: Callable[[Any], None] = print,
        kind: Any = None,
    ) -> None:
        """From now on answers are heard, and messages, and who ends before its time is noticed.

        Args:
            on_end: is told which and why.
            timeout: seconds in which a worker here that owes an answer must use some processor time; 0 is any time.
            kind: the type of the messages.
        """
        state = self._state
        self._start_threads(lambda worker: worker.receive(on_message, kind, _noting(state, on_end, worker.number)))
        if timeout > 0:
            here = [worker for worker in self._workers if not isinstance(worker.line, WorkerLine)]
            thread = threading.Thread(target=end_stuck_workers, args=(here, self._state.closing, timeout), daemon=True)
            self._threads.append(thread)
            thread.start()

    def relay(self, on_message: Callable[[int, bytes], None], on_end: Callable[[int, str], None]) -> None:
        """As `watch`, where all that they say is for somebody else."""
        state = self._state
        self._start_threads(lambda worker: worker.relay(on_message, _noting(state, on_end, worker.number)))

    def forward(self, number: int, message: bytes) -> None:
        """A message of somebody else, to a worker of this machine."""
        worker = next((each for each in self._workers if each.number == number), None)
        with suppress(OSError):  # that it is gone is noticed elsewhere
            if worker is not None:
                worker.channel.send_bytes(message)

    def send_files(self, number: int, descriptors: Sequence[int]) -> None:
        worker = self._of(number)
        try:
            worker.channel.send_files(descriptors)
        except OSError as error:
            raise worker.ended() from error

    def tell(self, name: str, *arguments: Any) -> None:
        """Has all of them do something; should one fail, the next step raises its error."""
        for worker in self._workers:
            worker.tell(name, *arguments)

    def tell_one(self, number: int, name: str, *arguments: Any) -> None:
        self._of(number).tell(name, *arguments)

    def call(self, name: str, *arguments: Any, result: Any = None) -> "list[Future[Any]]":
        """As `tell`, but with answers, of that type."""
        return [worker.call(name, *arguments, result=result) for worker in self._workers]

    def call_one(self, number: int, name: str, *arguments: Any, result: Any = None) -> "Future[Any]":
        return self._of(number).call(name, *arguments, result=result)

    def end_one(self, number: int) -> None:
        """Ends one of this machine, whatever it is at."""
        worker = self._of(number)
        if worker.process is not None:
            worker.process.kill()
            worker.process.wait()

    def close(self) -> None:
        """Ends those of this machine; returns when they are gone."""
        self._end()

    def _of(self, number: int) -> WorkerHandle:
        return next(worker for worker in self._workers if worker.number == number)

    def _start_threads(self, life: Callable[[WorkerHandle], None]) -> None:
        for worker in self._workers:
            thread = threading.Thread(target=life, args=(worker,), name=worker.name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _accept(self, listener: socket.socket) -> None:
        listener.settimeout(_LOOK_SECONDS)
        missing = {worker.number: worker for worker in self._workers}
        deadline = time.monotonic() + _CONNECT_SECONDS
        while missing:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                self._check_missing(list(missing.values()), deadline)
                continue
            channel = Channel(connection)
            with suppress(EOFError, MessageError, KeyError):  # that it is gone shows in the next turn
                arrival = channel.receive(Arrival)
                worker = missing.pop(arrival.worker)
                worker.line, worker.process_id = channel, arrival.process_id

    def _check_missing(self, missing: list[WorkerHandle], deadline: float) -> None:
        gone = next((each for each in missing if each.process is not None and each.process.poll() is not None), None)
        if gone is not None:
            self.close_after(gone.ended())
        if time.monotonic() > deadline:
            self.close_after(WorkerError(f"{missing[0].name} has not come within {_CONNECT_SECONDS:.0f} seconds"))

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


def _noting(state: _State, on_end: Callable[[int, str], None], number: int) -> Callable[[WorkerError], None]:
    def note_end(error: WorkerError) -> None:
        if not state.closing.is_set():
            state.error = state.error or error
            on_end(number, str(error))

    return note_end


def _end(workers: list[WorkerHandle], folder: Path | None, state: _State, threads: list[threading.Thread]) -> None:
    state.closing.set()
    for worker in workers:
        if worker.line is not None:
            worker.line.close()
    processes = [worker.process for worker in workers if worker.process is not None]
    for worker in workers:
        if worker.line is None and worker.process is not None:  # it may not have come to listen yet
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
