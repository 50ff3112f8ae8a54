"""Whether a process of this machine still does anything, and how it ended."""

import subprocess
import time
from collections.abc import Sequence
from threading import Event
from typing import Protocol

_LOOK_SECONDS = 1.0
# Of a core: the idle threads of MindSpore use a hundred-thousandth, a rank that waits for another two thousandths.
_LEAST_SHARE = 1e-4


class Stillness:
    """For how long a process has used no processor time worth mentioning.

    Looks are counted instead of time, so that it is no stillness of the process when all of them were stopped together.

    Args:
        seconds: after which it is still.
        look_seconds: between looks.
    """

    def __init__(self, process: int, seconds: float, look_seconds: float) -> None:
        self._process = process
        self._least = seconds * _LEAST_SHARE
        self._looks_left = self._num_looks = max(1, round(seconds / look_seconds))
        self._used = 0.0

    def forget(self) -> None:
        """As it need not do anything now, counting begins again."""
        self._looks_left = self._num_looks

    def look(self) -> bool:
        """Whether it is still."""
        try:
            used = time.clock_gettime(~self._process << 3 | 2)  # how Linux numbers the clocks of processes
        except OSError:
            return False  # it is gone, which others notice
        if used - self._used >= self._least:
            self._used, self._looks_left = used, self._num_looks
        else:
            self._looks_left -= 1
        return self._looks_left <= 0


class Watched(Protocol):
    """A process that another one works with."""

    process_id: int

    def is_busy(self) -> bool:
        """Whether it has something to do."""

    def give_up(self, why: str) -> None: ...


def how_ended(process: "subprocess.Popen[bytes]", seconds: float) -> str:
    """In words; it has closed its connection, so its end is near."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "has closed its connection"
    return f"was killed by signal {-code}" if code < 0 else f"has ended with exit code {code}"


def end_stuck_workers(processes: Sequence[Watched], closing: Event, timeout: float) -> None:
    """Gives up those that do nothing for so many seconds though they are busy, until it is told to end."""
    look_seconds = min(_LOOK_SECONDS, timeout / 4)
    watched = [(process, Stillness(process.process_id, timeout, look_seconds)) for process in processes]
    while not closing.wait(look_seconds):
        for process, stillness in watched:
            if not process.is_busy():
                stillness.forget()
            elif stillness.look():
                process.give_up(f"is stopped or stuck: it has done nothing for {timeout:g} seconds (worker_timeout)")
