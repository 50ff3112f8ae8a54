"""run_generate.py as a user types it: answers, formats, and mistakes."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindgen.cli.main import main
from mindgen.store import embedded

ROOT = Path(__file__).parents[2]
ANSWERS = json.loads((ROOT / "tests" / "data" / "demo_answers.json").read_text(encoding="utf-8"))


def run(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """What run_generate.py does, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["generate", "--config", str(ROOT / "configs" / "demo.yaml"), *map(str, arguments)])
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def run_process(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_generate.py"), *map(str, arguments)]
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=120)


def expected_answer(adapter_id: str | None, prompt: str) -> str:
    return next(a["answer"] for a in ANSWERS if a["adapter_id"] == adapter_id and a["prompt"] == prompt)


def refusal(*arguments: object, code: int, cwd: Path = ROOT) -> str:
    """The one line that a mistake gets."""
    result = run(*arguments, cwd=cwd)
    assert result.returncode == code, result.stderr
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if not line.startswith("memory: ")]  # said at the start
    assert len(lines) == 1 and lines[0].startswith("mindgen: error: "), result.stderr
    return lines[0]


def test_the_command_alone_answers_and_tells_its_figures(executor):
    result = run_process("--adapter_id", "A1", "--executor", executor)
    assert result.returncode == 0, result.stderr
    prompt = "An increasing sequence: one,"
    assert result.stdout == f"{prompt}{expected_answer('A1', prompt)}\n"
    assert "tokens/s" in result.stderr and "time to first token" in result.stderr


def test_several_prompts_and_adapters_in_one_batch_as_json_lines(tmp_path):
    chosen = [next(a for a in reversed(ANSWERS) if a["adapter_id"] == name) for name in ("A3", None, "A1", "A2")]
    target = tmp_path / "answers.jsonl"
    result = run(
        "--predict_data", *(answer["prompt"] for answer in chosen),
        "--adapter_id", *(answer["adapter_id"] or "base" for answer in chosen),
        "--output", target,
    )  # fmt: skip
    assert result.returncode == 0 and result.stdout == "", result.stderr
    records = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [record["text"] for record in records] == [answer["answer"] for answer in chosen]
    assert [record["adapter_id"] for record in records] == [answer["adapter_id"] for answer in chosen]
    digests = [record["adapter_digest"] for record in records]
    assert digests[1] is None and len(set(digests)) == 4
    assert {record["finish_reason"] for record in records} == {"stop"}


def test_prompts_from_a_file_from_another_folder(tmp_path):
    chosen = [answer for answer in ANSWERS if answer["adapter_id"] == "A2"][:3]
    (tmp_path / "prompts.txt").write_text("\n\n".join(answer["prompt"] for answer in chosen) + "\n")
    result = run_process("--predict_data", "prompts.txt", "--adapter_id", "A2", cwd=tmp_path)
    assert result.stdout.splitlines() == [answer["prompt"] + answer["answer"] for answer in chosen]


def test_sampling_with_a_seed_repeats_and_length_flags_bound():
    sampling = ("--do_sample", "--temperature", 3, "--top_k", 40, "--seed", 7)
    flags = ("--predict_data", "I love", "--output", "jsonl", *sampling)
    first, again = (json.loads(run(*flags, "--max_new_tokens", 12).stdout) for _ in range(2))
    assert first == again
    assert first["num_tokens"] <= 12
    bounded = json.loads(run("--max_length", 9, "--config", ROOT / "tests" / "data" / "no_limits.yaml", *flags).stdout)
    assert bounded["num_prompt_tokens"] + bounded["num_tokens"] <= 9


def test_missing_adapter_may_be_asked_to_be_the_base_model():
    prompt = "An increasing sequence: one,"
    result = run("--adapter_id", "B7", "--on_missing_adapter", "base")
    assert result.returncode == 0
    assert result.stdout.startswith(prompt + expected_answer(None, prompt))
    assert "unknown adapter_id 'B7'" in result.stdout and "warning: prompt 0: unknown adapter_id 'B7'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (("--adapter_id", "A9"), 2, "unknown adapter_id 'A9'"),
        (("--adapter_id", "A9"), 2, "known adapters: A1, A2, A3"),
        (("--predict_data", ""), 1, "prompt 0: the prompt is empty"),
        (("--predict_data", "word " * 3000), 1, "the context of"),
        (("--predict_data", "missing.txt"), 2, "cannot read the prompts in missing.txt"),
        (("--config", "missing.yaml"), 2, "cannot read the configuration missing.yaml"),
        (("--model", "missing"), 1, "no such model folder: missing"),
        (("--model", "tests"), 1, "tests has no config.json"),
        (("--adapter_path", "missing.json"), 1, "cannot read missing.json: No such file"),
        (("--adapter_id", "A1", "A2", "--prompt", "a", "b", "c"), 2, "2 names for 3 prompts"),
        (("--output", "answers.csv"), 2, "ending in .txt or .jsonl"),
        (("--top_p", "3", "--do_sample"), 1, "top_p must be above 0 and at most 1, not 3.0"),
        (("--use_parallel", "True"), 2, "use_parallel"),
        (("--max_new_tokens", "0"), 1, "max_tokens must be at least 1"),
    ],
)
def test_mistakes_get_one_line(arguments, code, expected):
    assert expected in refusal(*arguments, code=code)


@pytest.mark.parametrize("launcher", [(), ("-m", "mindgen", "launch", "--ranks", "2", "--", sys.executable)])
def test_an_unknown_adapter_is_said_before_the_model_is_loaded(launcher, tmp_path):
    """Whose weights are broken, so that it could not be."""
    for file in embedded.demo_folder().iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    adapters = ("--adapter_path", ROOT / "adapters", "--adapter_id", "A1", "A11", "--prompt", "one,", "two,")
    command = [sys.executable, *launcher, ROOT / "run_generate.py", "--model", tmp_path, *adapters]
    result = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert result.returncode == 2
    shown = (result.stdout + result.stderr).splitlines()
    last = shown.pop() if launcher else ""  # who failed
    assert launcher == () or "ended with exit code 2" in last
    expected = "mindgen: error: unknown adapter_id 'A11' (did you mean A1?); known adapters: A1, A2, A3"
    assert {line.removeprefix("[rank 0] ").removeprefix("[rank 1] ") for line in shown} == {expected}


def test_damaged_adapters_are_refused_and_others_still_work(tmp_path):
    (tmp_path / "bad").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / "bad" / name).write_bytes((ROOT / "adapters" / "A1" / name).read_bytes())
    weights = tmp_path / "bad" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    listing = {"bad": "bad", "good": str(ROOT / "adapters" / "A2")}
    (tmp_path / "lora_adapter.json").write_text(json.dumps(listing))
    assert "truncated" in refusal("--adapter_path", tmp_path, "--adapter_id", "bad", code=1)
    assert run("--adapter_path", tmp_path, "--adapter_id", "good").returncode == 0


def test_damaged_model(tmp_path):
    demo = ROOT / "mindgen" / "demo" / "model"
    for path in demo.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "truncated or damaged" in refusal("--model", tmp_path, code=1)
    weights.unlink()
    assert "has no checkpoint: expected model.safetensors" in refusal("--model", tmp_path, code=1)


def test_a_full_disk_is_one_line(tmp_path):
    target = tmp_path / "answers.jsonl"
    target.symlink_to("/dev/full")
    result = run("--output", target)
    plan, error = result.stderr.splitlines()
    assert result.returncode == 1 and plan.startswith("memory: ")
    assert error == "mindgen: error: [Errno 28] No space left on device"


def test_a_reader_that_leaves_early_gets_no_traceback():
    command = f"'{sys.executable}' run_generate.py --predict_data 'I love' 'An' 'One' | head -c 3"
    result = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert len(result.stdout) == 3
    assert "Traceback" not in result.stderr and "Exception" not in result.stderr


def test_mistakes_need_not_wait_for_mindspore():
    script = "import sys, mindgen.cli.main; sys.exit('mindspore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_debug_shows_the_traceback():
    result = run_process("--adapter_id", "A9", "--debug")
    assert result.returncode != 0
    assert "Traceback" in result.stderr and "UnknownAdapterError" in result.stderr


def test_a_profile_shows_kernels_against_the_machine(tmp_path):
    trace = tmp_path / "deep" / "trace.json"
    result = run("--adapter_id", "A1", "--profile", trace)
    assert result.returncode == 0, result.stderr
    for expected in ("decode step(s)", "AddLora", "PagedAttention", "share of limit", "outside kernels", "GB/s"):
        assert expected in result.stderr
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event["ph"] == "X"]
    steps = [event for event in events if event["tid"] == 0]
    kernels = [event for event in events if event["tid"] == 1]
    assert len(steps) == 11  # tokens of the answer
    assert kernels and all(event["dur"] > 0 and event["args"]["bytes"] > 0 for event in kernels)
    within = [step for event in kernels for step in steps if step["ts"] <= event["ts"] <= step["ts"] + step["dur"]]
    assert len(within) == len(kernels)


def test_the_runtime_has_no_profile_to_show(tmp_path):
    result = run("--executor", "mindspore", "--profile", tmp_path / "trace.json")
    assert result.returncode == 0, result.stderr
    assert "MindSpore's runtime ran the network" in result.stderr


def test_the_number_of_threads(tmp_path):
    result = run_process("--adapter_id", "A1", "--num_threads", 1)
    assert result.returncode == 0, result.stderr
    assert "num_threads must be at least 1, not 0" in refusal("--num_threads", 0, code=2)
