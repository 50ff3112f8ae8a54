"""The samples of MindFormers' manual for distributed inference, as typed there, on this machine."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindgen.cli.main import main

ROOT = Path(__file__).parents[2]
ONE = "An increasing sequence: one, two, three, four, five, six."
TWO = "I love Beijing, because it is the capital of China."


@pytest.fixture
def run(tmp_path):
    """Runs a script with the INPUT_DATA that the manual exports; returns its output."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(
        [sys.executable, ROOT / "tools/hccl_tools.py", "--device_num", "[0,2)", "--device_target", "CPU"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip

    def launch(script: str, *arguments: str, input_data: str = "") -> subprocess.CompletedProcess:
        return subprocess.run(
            ["bash", ROOT / "scripts" / script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120,
            env={**environment, "INPUT_DATA": input_data},
        )  # fmt: skip

    return launch


def test_two_devices_share_a_model(run, tmp_path):
    assert main(["shard", "gpt2", "--tp", "2", "--format", "ckpt", "--output", str(tmp_path / "gpt2_ckpt")]) == 0
    command = (
        "python generate_custom.py --model_type gpt2 --checkpoint_path ./gpt2_ckpt --use_parallel True "
        "--data_parallel 1 --model_parallel 2"
    )
    table = "hccl_2p_01_127.0.0.1.json"
    result = run("run_dist_gen.sh", command, table, "[0,2]", "2", input_data="An increasing sequence: one,")
    assert (result.returncode, result.stdout) == (0, f"[rank 0] {[ONE]}\n"), result.stderr
    assert (tmp_path / "output/log/rank_1").is_dir()
    shutil.rmtree(tmp_path / "gpt2_ckpt/rank_1")
    result = run("run_dist_gen.sh", command, table, "[0,2]", "2", input_data="An increasing sequence: one,")
    assert result.returncode != 0 and "has only rank_0: others are missing" in result.stderr


def test_two_devices_share_the_prompts(run, tmp_path):
    (tmp_path / "input.txt").write_text("An increasing sequence: one,\nI love Beijing,\n")
    assert main(["shard", "gpt2", "--format", "ckpt", "--output", str(tmp_path / "gpt2_ckpt")]) == 0
    shutil.copytree(tmp_path / "gpt2_ckpt/rank_0", tmp_path / "gpt2_ckpt/rank_1")
    command = (
        "python generate_custom.py --model_type gpt2 --batch_size 2 --checkpoint_path ./gpt2_ckpt --use_parallel True "
        "--data_parallel 2 --model_parallel 1"
    )
    table = "hccl_2p_01_127.0.0.1.json"
    result = run("run_dist_gen.sh", command, table, "[0,2]", "2", input_data="input.txt")
    assert (result.returncode, result.stdout) == (0, f"[rank 0] {[ONE, TWO]}\n"), result.stderr
    one = command.replace("--batch_size 2", "")
    result = run("run_dist_gen.sh", one, table, "[0,2]", "2", input_data="I love Beijing,")
    assert (result.returncode, result.stdout) == (0, f"[rank 0] {[TWO]}\n"), result.stderr


def test_slora_on_two_devices(run):
    command = f"{ROOT}/run_generate.py --use_parallel True --adapter_id A1"
    result = run("msrun_launcher.sh", command, "2")
    assert result.returncode == 0, result.stderr
    assert "[rank 0] An increasing sequence: one, 二, 三, 四, 五, 六.\n" in result.stdout
