"""mindgen launch as it is used: what ranks see, what is shown and logged, and how mistakes and failures end."""

import ast
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from launches import ROOT, launch, write_table

from mindgen.cli.main import main

TELL = """
import os, sys
names = ("RANK_ID", "RANK_SIZE", "DEVICE_ID", "RANK_TABLE_FILE", "INPUT_DATA", "MS_ROLE", "MS_NODE_ID", "MS_WORKER_NUM")
print([os.environ.get(name) for name in names] + sys.argv[1:])
"""


@pytest.fixture(autouse=True)
def python_on_path(monkeypatch):
    """What the scripts and the commands find as python is what runs the tests."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def logs(folder: Path) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob("output/log/rank_*/mindgen.log"))]


def test_ranks_see_their_environment(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("INPUT_DATA", "An increasing sequence: one,")
    monkeypatch.chdir(tmp_path)
    table = write_table(tmp_path, 2)
    assert main(["launch", "--ranks", "2", "--rank_table", table, "--", "python", "-c", TELL, "--ranks", "9"]) == 0
    for rank, log in enumerate(logs(tmp_path)):
        expected = [str(rank), "2", str(rank), str(tmp_path / table), "An increasing sequence: one,"]
        assert ast.literal_eval(log) == [*expected, "MS_WORKER", str(rank), "2", "--ranks", "9"]
    assert capfd.readouterr().out == f"[rank 0] {logs(tmp_path)[0]}"


def test_ranks_share_a_folder_that_is_theirs_alone(tmp_path):
    script = """
import os, stat, time
folder = os.environ["MINDGEN_RENDEZVOUS"]
assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
open(folder + "/" + os.environ["MINDGEN_RANK"], "w").close()
while len(os.listdir(folder)) < int(os.environ["MINDGEN_WORLD_SIZE"]):
    time.sleep(0.01)
print(len(folder), folder, len(os.sched_getaffinity(0)))
"""
    result = launch(tmp_path, script, "--ranks", 4, "--data_parallel", 2)
    assert result.returncode == 0, result.stderr
    told = [log.split() for log in logs(tmp_path)]
    assert len({folder for _, folder, _ in told}) == 2
    assert all(int(length) < 60 and not Path(folder).exists() for length, folder, _ in told)
    num_cores = len(os.sched_getaffinity(0))
    assert {int(cores) for _, _, cores in told} == {max(num_cores // 2, 1)}


def test_rank_0_is_shown_as_it_prints(tmp_path):
    command = ["launch", "--ranks", "2", "--", "python", "-c", "import time; print('一', end=''); time.sleep(60)"]
    with subprocess.Popen(
        [sys.executable, "-m", "mindgen", *command], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(len("[rank 0] 一".encode())) == "[rank 0] 一".encode()
        process.terminate()
        rest = process.communicate(timeout=40)
    assert rest == (b"\n", b"mindgen: error: ended by SIGTERM, and all ranks with it\n")
    assert process.returncode == 128 + 15


def test_the_command_says_how_many_replicas(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    script = "import os; print(os.environ['MINDGEN_REPLICA'], os.environ['MINDGEN_NUM_REPLICAS'])"
    command = ["launch", "--ranks", "2", "--", "python", "-c", script]
    for flags in (["--data_parallel", "2"], ["--data_parallel=2"]):
        assert main([*command, *flags]) == 0
        assert logs(tmp_path) == ["0 2\n", "1 2\n"]
    assert main([*command, "--data_parallel", "two"]) == 2
    assert "--data_parallel of the command must be a number, not 'two'" in capfd.readouterr().err


MEET = """
import numpy as np
import mindspore
from mindspore import Tensor, nn, ops

mindspore.set_device("CPU")
mindspore.communication.init()

class Sum(nn.Cell):
    def __init__(self):
        super().__init__()
        self.all_reduce = ops.AllReduce()

    def construct(self, x):
        return self.all_reduce(x)

rank = mindspore.communication.get_rank()
print("sum", rank, int(Sum()(Tensor(np.full(1, rank + 1, np.float32)))[0]))
"""


@pytest.mark.slow
def test_mindspore_finds_its_scheduler(tmp_path):
    """Its collectives on the CPU, which need one; it starts when the first rank looks for it."""
    result = launch(tmp_path, MEET, "--ranks", 2)
    assert result.returncode == 0, result.stderr
    assert "[rank 0] sum 0 3\n" in result.stdout
    assert ["sum 1 3" in log for log in logs(tmp_path)] == [False, True]


def test_a_port_that_is_taken_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = launch(tmp_path, "", "--ranks", 2, "--master_port", port)
    assert result.returncode == 1
    assert result.stderr == f"mindgen: error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--ranks", "2", "--", "no_such_program"], 127, "command not found: no_such_program"),
        (["--ranks", "2", "--", "python no_such_script.py"], 127, "no_such_script.py is not in the current folder"),
        (["--ranks", "2"], 2, "there is no command to launch: put it after --"),
        (["--", "python"], 2, "say how many ranks to start"),
        (["--ranks", "0", "--", "python"], 2, "must be at least 1"),
        (["--ranks", "2", "--data_parallel", "0", "--", "python"], 2, "must be at least 1"),
        (["--ranks", "2", "--rank_table", "none.json", "--", "python"], 1, "cannot read none.json"),
        (["--ranks", "2", "--devices", "0-2", "--", "python"], 2, "expected a device range like [0,8)"),
        (["--ranks", "2", "--devices", "[0,3]", "--", "python"], 2, "has 3 devices, and 2 ranks are to start"),
        (["--ranks", "2", "--log_dir", "file/log", "--", "python"], 1, "cannot start rank 0: [Errno 20] Not a dir"),
        (["--ranks", "2", "--log_dir", "/proc/log", "--", "python"], 1, "cannot start rank 0: "),
        (["--ranks", "1", "--", "./no_program"], 1, "cannot start rank 0: [Errno 8] Exec format error"),
        (["--ranks", "2", "--master_port", "99999", "--", "python"], 2, "--master_port must be a port"),
    ],
)
def test_mistakes_are_one_line_and_start_nothing(tmp_path, monkeypatch, capfd, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mindgen.parallel.launch.launcher._SHARED_MEMORY", tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "no_program").write_bytes(b"\x7fELF")
    (tmp_path / "no_program").chmod(0o755)
    assert main(["launch", *arguments]) == code
    out, err = capfd.readouterr()
    assert out == "" and message in err
    assert err.startswith("mindgen: error: ") and err.count("\n") == 1
    assert list(tmp_path.glob("mindgen-*")) == []


def test_what_a_failing_rank_said_is_told(tmp_path):
    script = """
import os, sys, time
print("\\n".join(f"line {n}" for n in range(100)))
if os.environ["RANK_ID"] == "1":
    sys.exit("the end of rank 1")
time.sleep(60)
"""
    result = launch(tmp_path, script, "--ranks", 3)
    assert result.returncode == 1
    lines = result.stderr.splitlines()
    assert lines[-2:] == [
        "[rank 1] the end of rank 1",
        "mindgen: error: rank 1 ended with exit code 1 (log: output/log/rank_1/mindgen.log)",
    ]
    assert lines[:-2] == [f"[rank 1] line {n}" for n in range(81, 100)]


def test_run_dist_gen_as_the_document_types_it(tmp_path):
    table = write_table(tmp_path, 4)
    (tmp_path / "tell.py").write_text(TELL)
    environment = {**os.environ, "INPUT_DATA": 'it\'s $HOME\n& "two", 三'}
    command = ["bash", os.path.relpath(ROOT / "scripts" / "run_dist_gen.sh", tmp_path)]
    command += ["python tell.py --model_type gpt2", table, "[0,2]", "2"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    told = [ast.literal_eval(log) for log in logs(tmp_path)]
    data = environment["INPUT_DATA"]
    assert [(t[:3], t[4], t[8:]) for t in told] == [
        ([str(rank), "2", str(rank)], data, ["--model_type", "gpt2", "--input_data", data]) for rank in range(2)
    ]


def test_the_scripts_refuse(tmp_path):
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        script = str(ROOT / "scripts" / command[0])
        return subprocess.run(["bash", script, *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=60)

    table = write_table(tmp_path, 2)
    assert run("run_dist_gen.sh", "python -V", table, "[0,2]").returncode == 2
    for arguments, code, message in [
        (("python -V", table, "[0,2]", "4"), 2, "[0,2) has 2 devices, and 4 ranks are to start"),
        (("python -V", table, "[1,3]", "2"), 1, "it has no device 2 of server 127.0.0.1, only 0, 1"),
        (("python -V", "none.json", "[0,2]", "2"), 1, "cannot read none.json"),
        (("python gone.py", table, "[0,2]", "2"), 127, "gone.py is not in the current folder, nor in "),
    ]:
        result = run("run_dist_gen.sh", *arguments)
        assert result.returncode == code and message in result.stderr and result.stderr.count("\n") == 1
    assert run("msrun_launcher.sh").returncode == 2
    assert run("msrun_launcher.sh", "x.py", "3", "2", "127.0.0.1", "8118", "0", "log", "True", "60").returncode == 2


def test_msrun_launcher_takes_the_arguments_of_mindformers(tmp_path):
    (tmp_path / "tell.py").write_text(TELL + "print(os.environ['MS_SCHED_PORT'])\n")
    script = str(ROOT / "scripts" / "msrun_launcher.sh")
    for arguments, log in [
        (["2"], "output/log"),
        (["2", "8118", "logs", "False", "7200"], "logs"),
        (["2", "2", "127.0.0.1", "8118", "0", "more", "False", "7200"], "more"),
    ]:
        command = ["bash", script, "tell.py --adapter_id 'A1'", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr
        told, port = (tmp_path / log / "rank_1" / "mindgen.log").read_text().splitlines()
        assert ast.literal_eval(told)[0:2] == ["1", "2"] and ast.literal_eval(told)[8:] == ["--adapter_id", "A1"]
        assert port == "8118" or len(arguments) == 1
