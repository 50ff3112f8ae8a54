"""However a launch ends, it ends within seconds, says why, and leaves no process and no folder behind."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from launches import command_line, is_running, wait_until

# Writes where it meets others, its number and those of its children: one in its group, one in a session of its own.
RANK = """
import os, signal, subprocess, sys, time
rank = os.environ["RANK_ID"]
exec(os.environ.get("FIRST", ""))
children = [subprocess.Popen(["sleep", "1000"], start_new_session=own) for own in (False, True)]
with open("started." + rank, "w") as file:
    file.write(" ".join(map(str, [os.environ["MINDGEN_RENDEZVOUS"], os.getpid(), *(child.pid for child in children)])))
os.rename("started." + rank, "pids." + rank)
print("working on it")
time.sleep(1000)
"""
DEAF = "signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.signal(signal.SIGINT, signal.SIG_IGN)"
LONG_GRACE = "45"  # seconds, far above what an end may take


class Launch:
    """A launcher at work, with three ranks that have started all they will."""

    def __init__(self, folder: Path, first: str = "", *arguments: object) -> None:
        self.launcher = subprocess.Popen(
            command_line(RANK, "--ranks", 3, *arguments), cwd=folder, env={**os.environ, "FIRST": first},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        files = [folder / f"pids.{rank}" for rank in range(3)]
        wait_until(lambda: all(file.exists() for file in files))
        self.pids = [[int(word) for word in file.read_text().split()[1:]] for file in files]
        self.folder = Path(files[0].read_text().split()[0]).parent
        assert self.folder.is_dir()

    def end(self, seconds: float = 20) -> tuple[int, str]:
        """Its exit code and what it said, less than LONG_GRACE after this; nothing is left."""
        started = time.monotonic()
        _, said = self.launcher.communicate(timeout=60)
        assert time.monotonic() - started < seconds
        assert not any(is_running(pid) for pids in self.pids for pid in pids)
        assert not self.folder.exists()
        return self.launcher.returncode, said


def test_a_killed_rank_ends_all(tmp_path):
    launch = Launch(tmp_path)
    os.kill(launch.pids[1][0], signal.SIGKILL)
    code, said = launch.end()
    assert code == 128 + 9
    assert said == (
        "[rank 1] working on it\n"
        "mindgen: error: rank 1 was ended by SIGKILL, as the system does when memory runs out "
        "(log: output/log/rank_1/mindgen.log)\n"
    )


def test_a_rank_killed_at_its_start_ends_all(tmp_path):
    script = "import os, signal, time; os.environ['RANK_ID'] == '2' and os.kill(os.getpid(), 9); time.sleep(1000)"
    result = subprocess.run(
        command_line(script, "--ranks", 3), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 128 + 9 and "rank 2 was ended by SIGKILL" in result.stderr


def test_the_rank_that_was_killed_is_named_not_those_that_fail_of_it(tmp_path):
    script = """
import os, socket, sys, time
rank = int(os.environ["RANK_ID"])
path = os.environ["MINDGEN_RENDEZVOUS"] + "/socket"
if rank == 2:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path + "1"); server.listen(); os.rename(path + "1", path)
        peers = [server.accept() for _ in range(2)]
        os.kill(os.getpid(), 11)
while not os.path.exists(path):
    time.sleep(0.01)
with socket.socket(socket.AF_UNIX) as peer:
    peer.connect(path)
    peer.recv(1)
    sys.exit("a peer has gone")
"""
    result = subprocess.run(
        command_line(script, "--ranks", 3), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 128 + 11 and "rank 2 was ended by SIGSEGV (log: " in result.stderr


def test_deaf_ranks_are_killed_after_the_grace(tmp_path):
    launch = Launch(tmp_path, DEAF, "--grace_seconds", "0.5")
    os.kill(launch.pids[0][0], signal.SIGKILL)
    code, said = launch.end()
    assert code == 128 + 9 and "rank 0 was ended by SIGKILL" in said


def test_a_stopped_rank_ends_all_unless_it_is_continued(tmp_path):
    launch = Launch(tmp_path, "", "--stopped_seconds", "1.5", "--grace_seconds", LONG_GRACE)
    os.kill(launch.pids[1][0], signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(launch.pids[1][0], signal.SIGCONT)
    time.sleep(1.8)
    assert launch.launcher.poll() is None
    os.kill(launch.pids[2][0], signal.SIGSTOP)
    code, said = launch.end()
    assert (
        code == 1 and "mindgen: error: rank 2 was stopped by a signal, and not continued for 1.5 seconds (log" in said
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_passed_on(tmp_path, number):
    script = f"signal.signal({int(number)}, lambda *_: (open('heard.' + rank, 'w').close(), sys.exit(0)))"
    launch = Launch(tmp_path, script)
    launch.launcher.send_signal(number)
    code, said = launch.end()
    assert code == 128 + number
    assert said == f"mindgen: error: ended by {number.name}, and all ranks with it\n"
    assert sorted(path.name for path in tmp_path.glob("heard.*")) == ["heard.0", "heard.1", "heard.2"]


def test_what_nohup_ignores_stays_ignored(tmp_path):
    script = "import os, signal; os.kill(os.getppid(), signal.SIGHUP); print('still there')"
    command = ["nohup", *command_line(script, "--ranks", 1)]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout) == (0, "[rank 0] still there\n"), result.stderr


def test_a_second_interrupt_does_not_wait(tmp_path):
    launch = Launch(tmp_path, DEAF, "--grace_seconds", LONG_GRACE)
    launch.launcher.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert launch.launcher.poll() is None and is_running(launch.pids[2][0])
    launch.launcher.send_signal(signal.SIGINT)
    assert launch.end()[0] == 128 + 2


@pytest.mark.parametrize("first", ["", DEAF])
def test_a_killed_launcher_leaves_nothing(tmp_path, first):
    launch = Launch(tmp_path, first)
    launch.launcher.kill()
    launch.launcher.wait()
    wait_until(lambda: not any(is_running(pid) for pids in launch.pids for pid in pids))
    wait_until(lambda: not launch.folder.exists())
    launch.launcher.communicate()


def test_what_ranks_leave_running_ends_with_them(tmp_path):
    script = RANK.replace("time.sleep(1000)", "sys.exit(0)")
    result = subprocess.run(
        command_line(script, "--ranks", 2), cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    pids = [int(word) for rank in range(2) for word in (tmp_path / f"pids.{rank}").read_text().split()[1:]]
    assert len(pids) == 6 and not any(is_running(pid) for pid in pids)


def test_a_terminal_that_goes_away_ends_all(tmp_path):
    launch = Launch(tmp_path)
    launch.launcher.stdout.close()
    launch.launcher.stdout = None
    with (tmp_path / "output" / "log" / "rank_0" / "mindgen.log").open("a") as log:
        log.write("more\n")
    assert launch.end(10)[0] == 1
