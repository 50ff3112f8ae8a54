"""benchmarks/serving.py: its smoke run, and what its client makes of a stream."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from serving import main
from serving_client import Stream
from serving_peers import summarize_load

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving.py"
EVENTS = (
    b'data: {"id":"1","choices":[{"index":0,"text":" a","finish_reason":null}],"usage":null}\n\n'
    b'data: {"id":"1","choices":[{"index":0,"text":"b","finish_reason":null}],"usage":null}\n\n'
    b'data: {"id":"1","choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null}\n\n'
    b'data: {"id":"1","choices":[],"usage":{"prompt_tokens":5,"total_tokens":7,"completion_tokens":2}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.mark.slow
def test_smoke_run(tmp_path):
    flags = ["--shape", "tiny", "--folder", tmp_path / "model", "--json", tmp_path / "serving.json", "--turns", "2"]
    flags += ["--streams", "2", "--tokens", "1000", "--prompt_tokens", "16", "--requests", "5", "--rates", "20", "40"]
    done = subprocess.run([sys.executable, SCRIPT, *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "serving.json").read_text())
    overhead = report["overhead"]
    assert overhead["turns"] == 2 and overhead["lowest_overhead"] <= overhead["overhead"]
    assert min(overhead[f"{name}_us"] for name in ("bare", "served", "server_cpu", "client_cpu")) > 0
    assert [(row["server"], row["rate"]) for row in report["latency"]] == [("mindgen", 20), ("mindgen", 40)]
    for row in report["latency"]:
        assert 0 < row["first p50"] <= row["first p99"] and 0 <= row["next p50"] <= row["next p99"]


@pytest.mark.parametrize("size", [1, 2, 7, 64, len(EVENTS)])
def test_the_client_counts_texts_however_they_are_cut(size):
    stream = Stream()
    ends = [stream.take(EVENTS[place : place + size]) for place in range(0, len(EVENTS), size)]
    assert True in ends and (len(stream.events), stream.tokens) == (2, 2)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'HTTP/1.1 429\r\n\r\n{"error": "full"}', "broke off: .*full"), (EVENTS.replace(b"tokens", b""), "no usage")],
)
def test_an_answer_that_is_none(data, message):
    stream = Stream()
    with pytest.raises(ConnectionError, match=message):
        stream.take(data)
        stream.take(b"")


def test_percentiles_are_of_each_turn():
    turns = [{"first": [1.0, 2.0, 3.0], "next": [0.0, base]} for base in (1.0, 2.0, 6.0)]
    found = summarize_load(turns)
    assert (found["first p50"], found["next p50"]) == (2, 1) and found["next p99"] == pytest.approx(1.98)


@pytest.mark.parametrize("flags", [["--vllm_python", "/nowhere/python"], ["--vllm_variable", "LD_PRELOAD"]])
def test_bad_arguments(monkeypatch, capsys, flags):
    monkeypatch.setattr(sys, "argv", ["serving.py", *flags])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2 and flags[0] in capsys.readouterr().err.splitlines()[-1]
