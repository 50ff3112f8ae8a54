"""Starts compile_worker.py as one rank of several."""

import json
import subprocess
import sys
from pathlib import Path

import stand_in

_WORKER = Path(__file__).with_name("compile_worker.py")
_ROOT = Path(__file__).parents[2]


def compile_as(folder: Path, num_ranks: int, rank: int, requests: list[dict], level: int = 0) -> list[dict]:
    """The worker's answers; MindSpore leaves files of its own in `folder`, the working directory.

    Args:
        level: 0 compiles only; 1 also runs, and answers zeros.
    """
    environment = stand_in.environment(stand_in.build(), level, num_ranks, rank)
    environment["PYTHONPATH"] += f":{_ROOT / 'tests'}"
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(_WORKER), json.dumps(requests)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert lines, f"rank {rank} of {num_ranks} ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return json.loads(lines[0].removeprefix("ANSWERS "))
