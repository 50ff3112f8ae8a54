"""Ends whatever a launch has started; as a script, when the launcher dies without having done so.

As a script it reads the numbers of process groups, a line each, from its standard input; the launcher holds the other
end for as long as it lives, and kills the script once all is in order.
"""

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Iterable


def kill_processes(groups: Iterable[int], folder: str) -> None:
    """Kills these process groups, and all that have left them: their environments name the folder."""
    for group in groups:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for _ in range(3):  # a process may have started another meanwhile
        strays = _processes_of(folder)
        for process in strays:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        if not strays:
            break


def _processes_of(folder: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/environ", "rb") as file:
            if f"={folder}/".encode() in file.read() and int(name) != os.getpid():
                found.append(int(name))
    return found


def main(folder: str) -> None:
    groups = [int(line) for line in sys.stdin]
    kill_processes(groups, folder)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])
