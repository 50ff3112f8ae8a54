"""Ranks that die at any time: the command ends soon, says why, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SECONDS = 30  # in which it must be over
PROMPT = "An increasing sequence: one,"
COMMAND = [
    sys.executable, "-m", "mindgen", "generate", "--model", "demo", "--max_new_tokens", "400", "--ignore_eos", "True",
]  # fmt: skip


class Job:
    """The command in a session and a temporary folder of its own."""

    def __init__(self, folder: Path, *arguments: str, prompts: tuple[str, ...] = (PROMPT,)) -> None:
        self._folder = folder
        self.process = subprocess.Popen(
            [*COMMAND, *arguments, "--prompt", *prompts],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def processes(self) -> dict[int, str]:
        """The command lines of all that belong to it and still live."""
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and os.getsid(int(entry.name)) == self.process.pid:
                    state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                    if state != "Z":
                        found[int(entry.name)] = (entry / "cmdline").read_text()
            except (ProcessLookupError, FileNotFoundError):
                continue
        return found

    def await_worker(self, module: str, has_imported: str | None = None, number: int = 1) -> int:
        """The worker of that number, once it exists, or has loaded a library of that name."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for pid, command in self.processes().items():
                if module not in command or command.split("\0")[-2] != str(number):
                    continue
                if not has_imported or has_imported in Path(f"/proc/{pid}/maps").read_text():
                    return pid
            time.sleep(0.005)
        raise AssertionError(f"no {module}: {self.process.communicate(timeout=1)}")

    def cpu_ticks(self, pid: int) -> int:
        """The hundredths of seconds that a process has computed."""
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])

    def end(self, since: float) -> str:
        """What it says on standard error, once everything is as it should be."""
        _, errors = self.process.communicate(timeout=SECONDS)
        assert time.monotonic() - since < SECONDS
        assert self.process.returncode == 1, errors
        self.assert_nothing_is_left()
        return errors

    def assert_nothing_is_left(self) -> None:
        deadline = time.monotonic() + SECONDS
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not self.processes()


@pytest.mark.parametrize("kind", ["--tp", "--pp"])
@pytest.mark.parametrize("moment", ["start-up", "load", "decode"])
def test_a_killed_rank_ends_the_command(kind, moment, tmp_path):
    job = Job(tmp_path, kind, "2")
    if moment == "decode":
        assert job.process.stdout.read(5)
    pid = job.await_worker("mindgen.runner.rank_process", "libmindspore_core" if moment == "load" else None)
    os.kill(pid, signal.SIGKILL)
    errors = job.end(time.monotonic())
    assert f"mindgen: error: rank 1 (process {pid}) was killed by signal 9" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ranks", "moment"),
    [
        pytest.param("--tp=2", "load", marks=pytest.mark.slow),
        ("--tp=2", "decode"),
        pytest.param("--pp=3", "decode", marks=pytest.mark.slow),
    ],
)
def test_a_stopped_rank_ends_the_command(ranks, moment, tmp_path):
    """It, and not one that waits for it."""
    job = Job(tmp_path, ranks, "--worker_timeout", "2")
    if moment == "decode":
        assert job.process.stdout.read(5)
    pid = job.await_worker("mindgen.runner.rank_process", "libmindspore_core" if moment == "load" else None)
    os.kill(pid, signal.SIGSTOP)
    errors = job.end(time.monotonic())
    assert f"mindgen: error: rank 1 (process {pid}) is stopped or stuck: it has done nothing for 2 seconds" in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_stopped_replica_ends_the_command(tmp_path):
    job = Job(tmp_path, "--dp", "2", "--worker_timeout", "2", prompts=("one,", "two,") * 100)
    assert job.process.stdout.read(2)
    pid = job.await_worker("mindgen.loop.replica")
    os.kill(pid, signal.SIGSTOP)
    assert f"mindgen: error: replica 1 (process {pid}) is stopped or stuck" in job.end(time.monotonic())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["load", "decode"])
def test_a_killed_replica_ends_the_command(moment, tmp_path):
    job = Job(tmp_path, "--dp", "2", prompts=("one,", "two,") * 100)  # more than it can answer in that time
    if moment == "decode":
        assert job.process.stdout.read(2)
    pid = job.await_worker("mindgen.loop.replica", "libmindspore_core" if moment == "load" else None)
    os.kill(pid, signal.SIGKILL)
    assert f"mindgen: error: replica 1 (process {pid}) was killed by signal 9" in job.end(time.monotonic())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rank", [*(pytest.param(rank, marks=pytest.mark.slow) for rank in (1, 2)), 3])
def test_whichever_stage_dies_is_named(rank, tmp_path):
    job = Job(tmp_path, "--tp", "2", "--pp", "2")
    assert job.process.stdout.read(5)
    pid = job.await_worker("mindgen.runner.rank_process", number=rank)
    os.kill(pid, signal.SIGKILL)
    assert f"mindgen: error: rank {rank} (process {pid}) was killed by signal 9" in job.end(time.monotonic())
    assert not list(tmp_path.iterdir())


def test_stages_that_wait_use_no_core(tmp_path):
    """The first stage stands still; the others and the rest of the command must as well."""
    job = Job(tmp_path, "--pp", "3")
    assert job.process.stdout.read(5)
    job.process.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    ticks = {pid: job.cpu_ticks(pid) for pid in job.processes()}
    time.sleep(1.0)
    assert len(ticks) == 3
    assert all(job.cpu_ticks(pid) - before <= 10 for pid, before in ticks.items())  # of 100 in a second
    job.process.kill()
    job.process.wait()
    job.assert_nothing_is_left()
    job.process.stdout.close()
    job.process.stderr.close()


@pytest.mark.slow
def test_a_stopped_rank_ends_those_that_a_launcher_started(tmp_path):
    launcher = subprocess.Popen(
        [
            *COMMAND[:3], "launch", "--ranks", "2", "--", *COMMAND, "--tp", "2", "--worker_timeout", "2",
            "--prompt", PROMPT,
        ],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    shown = launcher.stdout.readline()
    while "increasing" not in shown:  # it decodes
        more = launcher.stdout.read(10)
        assert more, launcher.communicate()
        shown += more
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    (pid,) = (int(each) for each in children if b"MINDGEN_RANK=1\0" in Path(f"/proc/{each}/environ").read_bytes())
    os.kill(pid, signal.SIGSTOP)
    _, errors = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 1 and "rank 0 ended with exit code 1" in errors
    assert "rank 1 is stopped or stuck: it has done nothing for 2 seconds" in errors
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.slow
def test_workers_end_with_whom_they_work_for(tmp_path):
    job = Job(tmp_path, "--tp", "2", "--dp", "2", prompts=("one,", "two,"))  # a replica with a rank of its own, too
    assert job.process.stdout.read(2)
    assert len(job.processes()) == 4
    job.process.kill()
    job.process.wait()
    job.assert_nothing_is_left()
    job.process.stdout.close()
    job.process.stderr.close()
