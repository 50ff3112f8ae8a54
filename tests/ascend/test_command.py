"""The command on Ascend from its flags to its answer, in MindSpore's dry run, whose logits are zeros: token 0."""

import json
import subprocess
import sys
from pathlib import Path

import stand_in

ROOT = Path(__file__).parents[2]
FLAGS = ["--dtype", "bfloat16", "--ignore_eos", "--output", "jsonl"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess:
    environment = stand_in.environment(stand_in.build(), level=1, num_ranks=1, rank=0) | {"GLOG_v": "4"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def answers(output: str) -> list[dict]:
    lines = [line.removeprefix("[rank 0] ") for line in output.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def test_one_npu_is_found_and_answers(tmp_path):
    done = run(
        [sys.executable, str(ROOT / "run_generate.py"), "--prompt", "Once upon", "--max_new_tokens", "2", *FLAGS],
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    (answer,) = answers(done.stdout)
    assert (answer["token_ids"], answer["finish_reason"]) == ([0, 0], "length")


def test_two_npus_share_the_network(tmp_path):
    """A process each, launched; the adapter is in both."""
    launch = [sys.executable, "-m", "mindgen", "launch", "--device_target", "Ascend", "--ranks", "2"]
    generate = [sys.executable, str(ROOT / "run_generate.py"), "--use_parallel", "True", "--device_target", "Ascend"]
    adapted = ["--prompt", "Once upon", "--adapter_id", "A1", "--max_new_tokens", "1"]
    done = run([*launch, "--", *generate, *adapted, *FLAGS], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (answer,) = answers(done.stdout)
    assert (answer["token_ids"], answer["adapter_id"]) == ([0], "A1")
