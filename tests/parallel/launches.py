"""Launches of small Python programs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tables import loopback_json

ROOT = Path(__file__).parents[2]


def command_line(script: str, *arguments: object, after: Sequence[str] = ()) -> list[str]:
    launcher = [sys.executable, "-m", "mindgen", "launch", *map(str, arguments)]
    return [*launcher, "--", sys.executable, "-c", script, *after]


def launch(
    folder: Path, script: str, *arguments: object, after: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(script, *arguments, after=after), cwd=folder, capture_output=True, text=True, timeout=60
    )


def write_table(folder: Path, num_devices: int) -> str:
    """The name of a rank table in the folder."""
    (folder / "hccl.json").write_text(json.dumps(loopback_json(num_devices)))
    return "hccl.json"


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come to that"
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
