"""Jobs of the demo whose process is killed: the output is that of a run that nobody disturbed, to the byte."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mindgen.batch.parts import Parts

NUM_ROWS = 2000
OPTIONS = (
    "--temperature", "1", "--n_samples", "2", "--max_tokens", "8", "--part_rows", "300", "--max_num_seqs", "64",
    "--token_ids", "--logprobs",
)  # fmt: skip


def write_input(path: Path, num_rows: int) -> None:
    words = ("one", "two", "three", "four", "five", "six", "seven")
    prompts = [f"An increasing sequence: {words[row % 7]}, {words[(row // 7) % 7]}," for row in range(num_rows)]
    adapters = [("A1", "A2", "A3", None)[row % 4] for row in range(num_rows)]
    pq.write_table(pa.table({"prompt": prompts, "adapter_id": adapters, "row": range(num_rows)}), path)


def command(folder: Path, output: str, *options: str) -> list[str]:
    paths = ("--input", str(folder / "in.parquet"), "--output", str(folder / output))
    return [sys.executable, "-m", "mindgen.batch", *paths, *OPTIONS, *options]


def start(folder: Path, output: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(command(folder, output, *options), stderr=subprocess.PIPE, text=True, cwd=folder)


def finish(process: "subprocess.Popen[str]") -> str:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def num_kept(folder: Path, output: str) -> int:
    """Rows whose answers are on disk."""
    parts = Parts(folder / f"{output}.job")
    in_parts = sum(header.num_rows for _, header in parts.headers() if header is not None)
    return in_parts + sum(1 for _ in parts.journaled())


def kill_until_finished(folder: Path, output: str, duration: float, moments: random.Random, most_kills: int) -> int:
    """Kills the job again and again at moments of a whole run; returns how often, until it ended by itself."""
    for num_kills in range(most_kills):
        process = start(folder, output)
        time.sleep(moments.uniform(0, duration))
        if process.poll() is not None:
            finish(process)
            return num_kills
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    kept = num_kept(folder, output)
    finish(start(folder, output))
    summary = msgspec.json.decode((folder / f"{output}.job" / "summary.json").read_bytes())
    # A run that was killed in its last moments has left nothing to do.
    assert summary["run"]["rows"] == NUM_ROWS - kept or kept in (0, NUM_ROWS)
    return most_kills


def check(folder: Path, num_kills: int, kills_per_job: int, seed: int) -> None:
    write_input(folder / "in.parquet", NUM_ROWS)
    began = time.monotonic()
    finish(start(folder, "expected.parquet"))
    duration = time.monotonic() - began
    expected, moments = (folder / "expected.parquet").read_bytes(), random.Random(seed)
    killed = job = 0
    while killed < num_kills:
        output = f"out{job}.parquet"
        killed += kill_until_finished(folder, output, duration, moments, kills_per_job)
        assert (folder / output).read_bytes() == expected
        assert sorted(path.name for path in folder.glob(f".*{output}*")) == []
        job += 1


@pytest.mark.slow
def test_a_job_killed_at_any_moment_gives_the_same_bytes(tmp_path: Path) -> None:
    check(tmp_path, num_kills=6, kills_per_job=3, seed=0)


@pytest.mark.slow
def test_a_killed_job_goes_on_with_other_numbers_of_rows_in_work_and_of_replicas(tmp_path: Path) -> None:
    write_input(tmp_path / "in.parquet", 400)
    finish(start(tmp_path, "expected.parquet", "--batch_size", "1000"))
    process = start(tmp_path, "out.parquet", "--batch_size", "7")
    while num_kept(tmp_path, "out.parquet") < 30:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert num_kept(tmp_path, "out.parquet") < 400
    finish(start(tmp_path, "out.parquet", "--dp", "2"))
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "expected.parquet").read_bytes()


if __name__ == "__main__":  # python tests/batch/test_crash.py FOLDER KILLS
    check(Path(sys.argv[1]), int(sys.argv[2]), 5, seed=1)
