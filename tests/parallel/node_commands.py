"""Commands that are nodes of one model, on loopback addresses."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

MASTER = "127.0.0.2"
SECONDS = 30  # in which all must be over once something has gone wrong
START_SECONDS = 120  # for a whole run on a machine that has other things to do
MINDGEN = ("-m", "mindgen")


def free_port() -> int:
    with socket.create_server((MASTER, 0)) as probe:
        return probe.getsockname()[1]


class NodeCommand:
    """Python in a session and a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: object, prefix: tuple[str, ...] = ()) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.process = subprocess.Popen(
            [*prefix, sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def workers(self, module: str) -> list[int]:
        """The processes of it that run a module."""
        return [pid for pid, command in self._processes().items() if module in command]

    def end(self, exit_code: int, seconds: float = START_SECONDS) -> tuple[str, str]:
        """What it has written, once it has ended with that code, and nothing of it is left."""
        output, errors = self.process.communicate(timeout=seconds)
        assert self.process.returncode == exit_code, errors
        assert "Traceback" not in errors
        deadline = time.monotonic() + SECONDS
        while self._processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self._processes()
        return output, errors

    def kill(self) -> None:
        """Whatever may be left of it, at the end of a test."""
        for pid in self._processes():
            os.kill(pid, 9)
        self.process.communicate()

    def _processes(self) -> dict[int, str]:
        """The command lines of all that belong to it and still live."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if not entry.name.isdigit() or os.getsid(int(entry.name)) != self.process.pid:
                    continue
                if (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                    found[int(entry.name)] = (entry / "cmdline").read_text()
            except (ProcessLookupError, FileNotFoundError):
                continue
        return found


def node_flags(node: int, port: int, *sizes: object) -> list[object]:
    return ["--nnodes", 2, "--node_rank", node, "--master_addr", MASTER, "--master_port", port, *sizes]
