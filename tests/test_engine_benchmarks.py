"""The engine's benchmarks run, and tell what must hold on any machine."""

import json
import sys

import engine_overhead
import prompt_gains
import pytest


def run(monkeypatch, module, path, *arguments) -> dict:
    monkeypatch.setattr(sys, "argv", [module.__name__, "--json", str(path), *map(str, arguments)])
    module.main()
    return json.loads(path.read_text())


@pytest.mark.slow
def test_what_is_outside_the_network_stays_flat_per_sequence(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--tokens", 16, "--batch_sizes", 1, 32, 256)
    report = run(monkeypatch, engine_overhead, tmp_path / "overhead.json", *arguments)
    costs = {(row["sampling params"], row["sequences"]): row["per sequence"] for row in report["steps"]}
    assert len(costs) == 6
    for kind in ("greedy", "sampled"):
        assert costs[kind, 256] < 3 * costs[kind, 32] and costs[kind, 32] < costs[kind, 1]
    assert report["gain"]["ratio"] > 2


@pytest.mark.slow
def test_prefix_caching_and_chunks_gain(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--shape", "tiny", "--folder", tmp_path / "model")
    report = run(monkeypatch, prompt_gains, tmp_path / "gains.json", *arguments)
    assert report["prefix"]["gain"] > 2
    chunked, whole = report["gaps"]
    assert chunked["longest gap ms"] < whole["longest gap ms"]
