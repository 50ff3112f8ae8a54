"""benchmarks/peers.py: its smoke run, its arithmetic, and workers that fail."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machine import MachineLimits
from peer_report import format_table, summarize, write_report
from peer_turns import Contender, Measurement, Plan, run_turns
from peers import main
from random_model import SHAPES, make_model
from worker_process import WorkerError, WorkerProcess
from workloads import ModelCosts, Workload, read_costs, room_for

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "peers.py"


@pytest.mark.slow
def test_smoke_run(tmp_path):
    output = tmp_path / "peers"
    command = [sys.executable, SCRIPT, "--quick", "--folder", tmp_path / "model", "--output", output]
    result = subprocess.run(
        [*command, "--engines", "mindgen", "transformers", "vllm"], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    report = json.loads((tmp_path / "peers.json").read_text())

    engines = report["engines"]
    assert engines["vllm"]["absence"] and "absent" in result.stdout
    for name in ("mindgen", "transformers"):
        assert engines[name]["failure"] is None
        assert engines[name]["startup_seconds"] > 0
        assert engines[name]["peak_memory_bytes"] > 50 << 20
    rows = {(row["workload"], row["engine"]): row for row in report["summary"]}
    assert set(rows) == {(w, e) for w in ("decode", "prefill", "batch") for e in ("mindgen", "transformers")} | {
        ("adapters", "mindgen")
    }
    for row in rows.values():
        assert row["turns"] == 3 and 0 < row["minimum"] <= row["median"] <= row["maximum"]
    same, all_tokens = (sum(row.get(key, 0) for row in rows.values()) for key in ("same_first_tokens", "first_tokens"))
    assert all_tokens == 3 * (1 + 1 + 4) and same >= 0.9 * all_tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engines", "vlm"], "unknown engine 'vlm'"),
        (["--peer", "vlm=python"], "unknown engine 'vlm'"),
        (["--peer", "vllm"], "--peer must be NAME=PYTHON"),
        (["--peer", "vllm=/nowhere/python"], "the interpreter of vllm is no executable file: /nowhere/python"),
        (["--peer", "vllm=/tmp"], "the interpreter of vllm is no executable file: /tmp"),
        (["--turns", "2"], "--turns must be at least 3"),
        (["--threads", "0"], "--threads must be 1 to"),
        (["--workloads", "dcode"], "unknown workload 'dcode'"),
        (["--environments", "/nowhere.yaml"], "cannot read /nowhere.yaml"),
        (["--folder", __file__], "[Errno 17] File exists"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    assert main(["--quick", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith(f"peers.py: {message}") and captured.err.count("\n") == 1


@pytest.mark.parametrize("content", ["- vllm", "vllm: {environment: 3}", "vllm: [", "vlm: python"])
def test_bad_environments(content, tmp_path, capsys):
    path = tmp_path / "peers.yaml"
    path.write_text(content)
    assert main(["--quick", "--environments", str(path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def worker(code: str, folder: Path) -> WorkerProcess:
    return WorkerProcess([sys.executable, "-c", code], folder / "log", {})


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_worker_is_frozen_between_requests(tmp_path):
    code = "import os, sys\nfor line in sys.stdin: print('{\"pid\": %d}' % os.getpid(), flush=True)"
    with worker(code, tmp_path) as process:
        for _ in range(2):
            pid = process.request({}, timeout=10)["pid"]
            deadline = time.monotonic() + 10
            while state(pid) != "T" and time.monotonic() < deadline:
                time.sleep(0.001)
            assert state(pid) == "T"
        assert 1 << 20 < process.peak_memory() < 100 << 20
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("code", "timeout", "message"),
    [
        ("import sys; input(); sys.exit('out of cheese')", 10, "ended with code 1; its last lines: out of cheese"),
        ("import os; input(); os.abort()", 10, "ended with code -6"),
        ("import time; time.sleep(100)", 0.3, "no answer within 0.3 s"),
        ("input(); print('hello')", 10, "not an answer: hello"),
        ("""input(); print('{"error": "no such model"}')""", 10, "no such model"),
    ],
)
def test_worker_that_fails(code, timeout, message, tmp_path):
    with worker(code, tmp_path) as process, pytest.raises(WorkerError, match=message):
        process.request({}, timeout)


class SteadyMachine:
    def measure(self) -> MachineLimits:
        return MachineLimits(1e9, 1e12)


def test_one_that_ends_does_not_stop_the_others(tmp_path):
    code = """
import json, sys
runs = 0
for line in sys.stdin:
    request = json.loads(line)
    if request["command"] == "run":
        runs += 1
        if runs > RUNS:
            sys.exit("no more")
        print(json.dumps({"seconds": request["new_tokens"] / 10, "first_tokens": [7] * len(request["prompts"])}))
    else:
        print(json.dumps({"versions": {"x": "1"}, "precision": "none"}))
    sys.stdout.flush()
"""
    workload = Workload("batch", "output", 2, 8, 5)
    costs = ModelCosts(vocab_size=9, weight_bytes=20, layer_weights=1, head_weights=1, attention_width=1)
    room = room_for([workload])
    plan = Plan(tmp_path, costs, [], [workload], room, turns=3, threads=1, timeout=10)
    # The first token and the warm-up are runs as well.
    ends = Contender("vllm", [sys.executable, "-c", code.replace("RUNS", "3")], {})
    goes_on = Contender("mindgen", [sys.executable, "-c", code.replace("RUNS", "9")], {})
    assert run_turns([ends, goes_on], plan, SteadyMachine(), tmp_path / "peers")
    assert "ended with code 1; its last lines: no more" in ends.failure and len(ends.measurements) == 1
    assert goes_on.failure is None and [m.tokens_per_second for m in goes_on.measurements] == [20, 20, 20]
    write_report([ends, goes_on], plan, tmp_path / "peers")
    assert "FAILED: ended with code 1" in format_table(json.loads((tmp_path / "peers.json").read_text()), [workload])


def test_costs_of_the_random_model(tmp_path):
    make_model(tmp_path, "tiny")
    sizes = SHAPES["tiny"]
    hidden, layers, vocab = sizes["hidden_size"], sizes["num_hidden_layers"], sizes["vocab_size"]
    layer = 2 * hidden * hidden + 2 * hidden * (hidden // 2) + 3 * hidden * sizes["intermediate_size"]
    costs = read_costs(tmp_path)
    assert costs.layer_weights == layers * layer
    assert costs.weight_bytes == 2 * (layers * (layer + 4 * hidden) + hidden + vocab * hidden)
    # One token: every weight once, and attention to itself, a product for the score and one for the value.
    assert costs.prefill_operations(1) == 2 * (layers * layer + vocab * hidden) + 4 * layers * hidden


def test_summary():
    def contender(name: str, rates: list[float]) -> Contender:
        limits = MachineLimits(read_bandwidth=1000.0, product_rate=1.0)
        runs = [Measurement("decode", turn, 1.0, rate, [turn], 0.0, limits) for turn, rate in enumerate(rates)]
        return Contender(name, None, {}, measurements=runs)

    costs = ModelCosts(vocab_size=9, weight_bytes=20, layer_weights=1, head_weights=1, attention_width=1)
    workload = Workload("decode", "decode", 1, 8, 32)
    ours, theirs = summarize(workload, [contender("mindgen", [40, 20, 30]), contender("vllm", [10, 10, 20])], costs)
    assert (ours["median"], ours["minimum"], ours["maximum"], ours["share_median"]) == (30, 20, 40, 0.6)
    assert (theirs["ratio_median"], theirs["ratio_minimum"], theirs["ratio_maximum"]) == (2, 1.5, 4)
    assert theirs["ratio_at_limit_median"] == 5  # 1000 bytes a second are 50 tokens of 20 bytes
    assert (theirs["same_first_tokens"], theirs["first_tokens"]) == (3, 3)


def test_rates():
    assert Workload("decode", "decode", 1, 32, 128).tokens_per_second(3.0, 1.0) == 127 / 2
    assert Workload("decode", "decode", 1, 32, 128).tokens_per_second(2.0, 2.1) == 64
    assert Workload("prefill", "prefill", 1, 1024, 1).tokens_per_second(2.0, None) == 512
    assert Workload("batch", "output", 32, 128, 64).tokens_per_second(4.0, None) == 512
