"""A worker as its parent sees it: a process that answers requests, and is frozen in between."""

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_LOG_LINES = 3


class WorkerError(Exception):
    """A worker failed, ended or hung."""


class WorkerProcess:
    """Runs a command that speaks peer_workers/worker.py's protocol.

    While it owes no answer, all its processes are stopped, so that no thread of it spins beside another's measurement.

    Args:
        log: where its standard error goes.
        environment: variables on top of this process's own.

    Raises:
        WorkerError: the command cannot be started.
    """

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str]) -> None:
        self.started = time.perf_counter()
        self._log = log
        try:
            with log.open("wb") as stderr:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    bufsize=0,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
        except OSError as error:
            raise WorkerError(f"cannot be started: {error}") from error
        self._unread = b""

    def __enter__(self) -> "WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def request(self, message: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            WorkerError: it reported an error, ended, or gave no answer within timeout seconds, and is no more then.
        """
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
        except BrokenPipeError:
            raise self._ended() from None
        line = self._read_line(time.monotonic() + timeout, timeout)
        self._signal(signal.SIGSTOP)
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            raise WorkerError(f"not an answer: {line[:200].decode(errors='replace')}") from None
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def peak_memory(self) -> int:
        """Bytes: the largest resident sizes of its processes so far, added up."""
        return sum(_peak_resident_size(pid) for pid in _processes_of_session(self._process.pid))

    def busy_seconds(self) -> float:
        """Processor time of its processes so far."""
        return sum(_processor_time(pid) for pid in _processes_of_session(self._process.pid))

    def close(self) -> None:
        """Ends it, at once if it is slow to go."""
        self._process.stdin.close()
        self._signal(signal.SIGCONT)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        self._kill()
        self._process.stdout.close()

    def _read_line(self, deadline: float, timeout: float) -> bytes:
        while b"\n" not in self._unread:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self._kill()
                raise WorkerError(f"no answer within {timeout:g} s; its last lines: {self._last_lines()}")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            if not part:
                raise self._ended()
            self._unread += part
        line, self._unread = self._unread.split(b"\n", 1)
        return line

    def _ended(self) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):  # its own code rather than that of the kill
            self._process.wait(timeout=5)
        self._kill()
        return WorkerError(f"ended with code {self._process.returncode}; its last lines: {self._last_lines()}")

    def _last_lines(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return " | ".join([line.strip() for line in lines if line.strip()][-_LOG_LINES:])[-400:] or "(none)"

    def _kill(self) -> None:
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def _processes_of_session(session: int) -> list[int]:
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if _session(pid) == session]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None


def _processor_time(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except FileNotFoundError:
        return 0
    user, system = fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _peak_resident_size(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
