"""Processes that live and die together: each in a session of its own, none left behind however this one ends."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from mindgen.errors import LaunchError
from mindgen.parallel.launch import guard
from mindgen.system.environment import noted_signals

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.02
_KILLED_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Task:
    """A process to run.

    Attributes:
        environment: all of it.
        cores: where it may run; None for anywhere.
        takes_input: whether it reads this process's standard input; else it finds nothing there.
        demand: makes it a service: closed, and the service started in its place, when somebody connects to it; ended
            when all others have ended well.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    cores: list[int] | None = None
    takes_input: bool = False
    demand: socket.socket | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went: well where both are None.

    Attributes:
        failed: the task that ended first, and not well.
        code: its exit code, or minus the number of the signal that ended it, or SIGSTOP's if that stopped it for good.
        received: the signal that this process was told to end with.
    """

    failed: Task | None = None
    code: int = 0
    received: signal.Signals | None = None


@dataclass(eq=False, slots=True)
class _Running:
    task: Task
    process: "subprocess.Popen[bytes]"
    code: int | None = None
    stopped_at: float | None = None


def run_tasks(
    tasks: Sequence[Task], folder: Path, grace_seconds: float, stopped_seconds: float, at_work: Callable[[], None]
) -> Outcome:
    """Runs the tasks to the end; if one fails, or a signal comes, all get to know and have the grace to end.

    Args:
        folder: removed if this process dies; below it is the rendezvous that each task's environment names.
        stopped_seconds: after which one that a signal has stopped has failed.
        at_work: called again and again while processes run.

    Raises:
        LaunchError: a process cannot be started, or its log not be written.
    """
    started: list[_Running] = []
    services = {task.demand: task for task in tasks if task.demand}
    with noted_signals(_SIGNALS) as signals, _guarded(folder) as announce:

        def work() -> None:
            for demand in select.select(list(services), [], [], 0)[0]:
                demand.close()
                started.append(_start(services.pop(demand), announce))
            at_work()

        try:
            for task in tasks:
                if not task.demand:
                    started.append(_start(task, announce))
            outcome = _watch(started, signals, stopped_seconds, work)
            told = outcome.received or (signal.SIGTERM if outcome.failed else None)
            if told:
                _tell(started, told)
                _wait_for_ends(started, signals, time.monotonic() + grace_seconds, at_work)
        finally:
            _kill(started, folder)
    return outcome


@contextmanager
def _guarded(folder: Path) -> Iterator[int]:
    """A guard that outlives this process; yields the descriptor where a group's number has to be written."""
    command = [sys.executable, "-I", "-S", guard.__file__, str(folder)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    assert process.stdin is not None
    try:
        yield process.stdin.fileno()
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def _start(task: Task, announce: int) -> _Running:
    def before_exec() -> None:
        # The guard reads of the process before this one can die without it: the descriptor closes only with exec.
        os.write(announce, b"%d\n" % os.getpid())
        if task.cores is not None:
            os.sched_setaffinity(0, task.cores)

    try:
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with task.log.open("wb") as log:
            process = subprocess.Popen(
                task.command, env=task.environment, stdin=None if task.takes_input else subprocess.DEVNULL, stdout=log,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=before_exec,
            )  # fmt: skip
    except OSError as error:
        raise LaunchError(f"cannot start {task.name}: {error}") from error
    return _Running(task, process)


def _watch(
    started: Sequence[_Running], signals: Sequence[int], stopped_seconds: float, at_work: Callable[[], None]
) -> Outcome:
    """Until all but services have ended well, one has ended otherwise or been stopped, or a signal has come."""
    while True:
        at_work()
        if signals:
            return Outcome(received=signal.Signals(signals[0]))
        ended = [running for running in started if _has_just_ended(running)]
        # One that a signal ended is the cause of failures that come at the same time.
        for running in sorted(ended, key=lambda running: (running.code or 0) >= 0):
            if running.code:
                return Outcome(running.task, running.code)
        for running in started:
            if _stopped_seconds(running) > stopped_seconds:
                return Outcome(running.task, -signal.SIGSTOP)
        if all(running.code == 0 for running in started if not running.task.demand):
            return Outcome()
        time.sleep(_POLL_SECONDS)


def _has_just_ended(running: _Running) -> bool:
    """Notes how it ended; the process stays a zombie, so that the number of its group stays its own."""
    if running.code is not None:
        return False
    result = os.waitid(os.P_PID, running.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if result is None:
        return False
    running.code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
    return True


def _stopped_seconds(running: _Running) -> float:
    """For how long it has been stopped; no terminal does that, for it has none."""
    is_stopped = False
    if running.code is None:
        with suppress(ChildProcessError):  # it is ending
            flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            is_stopped = os.waitid(os.P_PID, running.process.pid, flags) is not None
    if not is_stopped:
        running.stopped_at = None
        return 0
    running.stopped_at = running.stopped_at or time.monotonic()
    return time.monotonic() - running.stopped_at


def _tell(started: Sequence[_Running], number: signal.Signals) -> None:
    for running in started:
        os.killpg(running.process.pid, number)
        os.killpg(running.process.pid, signal.SIGCONT)  # who is stopped would not hear


def _wait_for_ends(
    started: Sequence[_Running], signals: Sequence[int], deadline: float, at_work: Callable[[], None]
) -> None:
    """Until all have ended, the time is over, or a further signal asks for haste."""
    heard = len(signals)
    while time.monotonic() < deadline and len(signals) == heard:
        for running in started:
            _has_just_ended(running)
        if all(running.code is not None for running in started):
            return
        at_work()
        time.sleep(_POLL_SECONDS)


def _kill(started: Sequence[_Running], folder: Path) -> None:
    guard.kill_processes([running.process.pid for running in started], str(folder))
    for running in started:
        try:
            running.process.wait(_KILLED_SECONDS)
        except subprocess.TimeoutExpired:
            print(f"mindgen: {running.task.name}, process {running.process.pid}, cannot be killed", file=sys.stderr)
