"""The engine's benchmarks run; what they measure is for no test to judge."""

import json
import sys

import engine_overhead
import loading
import matmul
import pipeline
import prompt_gains
import pytest
import steps
import streams
import tensor_parallel
from step_breakdown import outside_kernels
from step_times import PARTS

from mindgen.kernels import plugin
from mindgen.kernels.library import DType
from mindgen.runner.profiling import KernelCall, Profile, Step


def run(monkeypatch, module, path, *arguments) -> dict:
    monkeypatch.setattr(sys, "argv", [module.__name__, "--json", str(path), *map(str, arguments)])
    module.main()
    return json.loads(path.read_text())


def test_what_is_outside_the_network(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--tokens", 16, "--batch_sizes", 1, 32, 256)
    report = run(monkeypatch, engine_overhead, tmp_path / "overhead.json", *arguments)
    costs = {(row["sampling params"], row["sequences"]): row["per sequence"] for row in report["steps"]}
    assert len(costs) == 6 and min(costs.values()) > 0
    assert report["gain"]["ratio"] > 0


@pytest.mark.slow
def test_steps_against_the_machine(monkeypatch, tmp_path):
    arguments = ("--turns", 1, "--shape", "tiny", "--folder", tmp_path / "model")
    report = run(monkeypatch, steps, tmp_path / "steps.json", *arguments)
    assert len(report["rows"]) == 6 and min(row["ms"] for row in report["rows"]) > 0
    assert report["adapters_ratio"] > 0 and len(report["lowering_s"]) == 2


@pytest.mark.slow
def test_loading_against_reading(monkeypatch, tmp_path):
    safetensors, packed = run(monkeypatch, loading, tmp_path / "loading.json", "--turns", 1, "--megabytes", 1)
    for each in (safetensors, packed):
        (turn,) = each["turns"]
        assert min(measured["seconds"] for measured in turn.values()) > 0
        assert turn["load"]["peak_bytes"] - turn["load"]["memory_bytes"] < 900e6
    assert packed["turns"][0]["load"]["memory_bytes"] > 1.8 * packed["turns"][0]["read"]["memory_bytes"]


@pytest.mark.slow
def test_products_against_the_machine(monkeypatch, tmp_path):
    report = run(monkeypatch, matmul, tmp_path / "matmul.json", "--turns", 1, "--layers", 1)
    assert len(report["shapes"]) == 6 and len(report["steps"]) == 8
    assert report["lora"][0]["with_lora_ms"] > 0 and report["prompt"][0]["ratio"] > 0


def test_many_streams_need_no_threads(monkeypatch, tmp_path):
    few, many = (
        run(monkeypatch, streams, tmp_path / "streams.json", "--turns", 1, "--streams", count, "--tokens", 4)
        for count in (20, 300)
    )
    assert few["ratio"] > 0 and many["most_threads"] <= many["threads_before"] + 6  # of asyncio's executor


@pytest.mark.slow
def test_prefix_caching_and_chunks(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--shape", "tiny", "--folder", tmp_path / "model")
    report = run(monkeypatch, prompt_gains, tmp_path / "gains.json", *arguments)
    assert report["prefix"]["gain"] > 0
    assert all(gap["longest gap ms"] > 0 for gap in report["gaps"])


@pytest.mark.slow
def test_stages_and_one_process(monkeypatch, tmp_path):
    arguments = ("--turns", 1, "--shape", "tiny", "--folder", tmp_path / "model")
    rows = run(monkeypatch, pipeline, tmp_path / "pipeline.json", *arguments)
    assert len(rows) == 4 and all(row["ratio"] > 0 for row in rows)


@pytest.mark.slow
def test_ranks_against_threads(monkeypatch, tmp_path):
    arguments = ("--turns", 1, "--shape", "tiny", "--folder", tmp_path / "model")
    rows = run(monkeypatch, tensor_parallel, tmp_path / "ranks.json", *arguments)["rows"]
    assert len(rows) == 3
    for row in rows:
        assert min(row["ms"].values()) > 0 and all(len(ratios) == 1 for ratios in row["ratios"].values())
        assert row["same_first_tokens"] > 0.9


def test_time_outside_kernels_adds_up():
    profile = Profile(plugin.load(), DType.BFLOAT16)
    profile.steps = [Step(0, 1000, 8, 1), Step(2000, 3000, 1, 1), Step(4000, 5000, 1, 1)]  # the last ends the request
    calls = [(100, 50, 10), (2100, 300, 20), (2450, 200, 30), (4100, 50, 10)]
    profile.calls = [KernelCall("MatMul", "", start, duration, 0, 0, recording) for start, duration, recording in calls]
    parts = dict.fromkeys(PARTS, 10e-9) | {"network": 600e-9, "sampling kernel": 40e-9}
    (row,) = outside_kernels(profile, "decode", [parts] * 3)
    assert row["between kernels"] == pytest.approx(50e-9) and row["recording, not counted"] == pytest.approx(50e-9)
    assert row["all"] == pytest.approx(50e-9 + 40e-9 + 10e-9 * (len(PARTS) - 2))
    assert row["all but the sampling kernel"] == pytest.approx(row["all"] - 40e-9)
    assert profile.outside_kernels("decode") == pytest.approx((1000 - 550 + 1000 - 60) / 2 * 1e-9)
