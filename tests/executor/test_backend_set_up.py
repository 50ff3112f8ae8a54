"""How the graph backend comes to be on a machine, and what happens where it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANSWER = "An increasing sequence: one, 二, 三, 四, 五, 六.\n"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_generate.py"), "--adapter_id", "A1", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, encoding="utf-8", timeout=300
    )


def test_without_a_compiler_the_runtime_answers_and_one_line_says_why(tmp_path):
    result = run(PATH=str(tmp_path), MINDGEN_CACHE=str(tmp_path / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == ANSWER
    said = [line for line in result.stderr.splitlines() if line.startswith("mindgen:")]
    assert len(said) == 1
    assert "MindSpore's runtime" in said[0] and "apt install g++" in said[0]


def test_without_a_place_for_it_the_runtime_answers(tmp_path):
    (tmp_path / "file").write_text("")
    result = run(MINDGEN_CACHE=str(tmp_path / "file" / "cache"))
    assert result.returncode == 0, result.stderr
    assert result.stdout == ANSWER
    assert "cannot write to" in result.stderr


@pytest.mark.slow
def test_it_is_compiled_once_by_processes_that_start_at_once(tmp_path):
    command = [sys.executable, str(ROOT / "run_generate.py"), "--adapter_id", "A1"]
    environment = {**os.environ, "MINDGEN_CACHE": str(tmp_path)}
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        for _ in range(2)
    ]
    results = [process.communicate(timeout=400) for process in processes]
    assert [stdout for stdout, _ in results] == [ANSWER] * 2
    assert sum("compiling the graph backend" in stderr for _, stderr in results) == 1
    assert len(list(tmp_path.glob("mindspore-*.so"))) == 1
    again = run(MINDGEN_CACHE=str(tmp_path))
    assert again.stdout == ANSWER
    assert "mindgen:" not in again.stderr
