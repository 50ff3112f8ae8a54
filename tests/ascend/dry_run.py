"""Runs compile_worker.py as one rank of several."""

import json
import subprocess
import sys
from pathlib import Path

import stand_in

_WORKER = Path(__file__).with_name("compile_worker.py")
ROOT = Path(__file__).parents[2]


def compile_as(folder: Path, num_ranks: int, rank: int, requests: list[dict], level: int = 0) -> list[dict]:
    """The worker's answers; it leaves MindSpore's files in `folder`."""
    environment = stand_in.environment(stand_in.build(), level, num_ranks, rank)
    environment["PYTHONPATH"] += f":{ROOT}"
    done = subprocess.run(
        [sys.executable, str(_WORKER), json.dumps(requests)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWERS ")]
    assert lines, (
        f"rank {rank} of {num_ranks} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-6000:]}"
    )
    return json.loads(lines[0].removeprefix("ANSWERS "))
