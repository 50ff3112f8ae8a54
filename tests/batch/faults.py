"""Faults that come while a job runs: a thread waits for its moment, and does something to a process."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Fault(threading.Thread):
    """Does something once, as soon as a journal of the job has so many rows.

    Meanwhile the process that writes it is stopped, if it is another one, so that the part does not end.

    Args:
        folder: of the job.
        num_rows: that the journal has more than; -1 does it as soon as somebody writes one.
        act: with the journal and the process that writes it.

    Attributes:
        done: what `act` has returned; None before.
    """

    def __init__(self, folder: Path, num_rows: int, act: Callable[[Path, int], object]) -> None:
        super().__init__(daemon=True)
        self._folder, self._num_rows, self._act = folder, num_rows, act
        self._is_over = threading.Event()
        self.done: object = None

    def run(self) -> None:
        while not self._is_over.wait(0.02):
            for journal in self._folder.glob("parts/*.journal"):
                writer = process_that_has_open(journal)
                if writer is None:
                    continue
                with stopped(writer):
                    if num_lines(journal) > self._num_rows:
                        self.done = self._act(journal, writer)
                        return

    def __enter__(self) -> "Fault":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._is_over.set()
        self.join()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Without effect on this process itself, and on one that has ended."""
    if pid == os.getpid():
        yield
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def num_lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def process_that_has_open(path: Path) -> int | None:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(path):
                return int(link.parts[2])
        except OSError:
            continue
    return None


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def children(pid: int) -> list[int]:
    return [int(each) for path in Path(f"/proc/{pid}/task").glob("*/children") for each in path.read_text().split()]


def kill(journal: Path, pid: int) -> bytes:
    """Returns what is in the journal then."""
    os.kill(pid, signal.SIGKILL)
    while is_alive(pid):
        time.sleep(0.01)
    return journal.read_bytes()


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False
