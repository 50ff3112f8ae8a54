"""The engine's benchmarks run; what they measure is for no test to judge."""

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
def test_what_is_outside_the_network(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--tokens", 16, "--batch_sizes", 1, 32, 256)
    report = run(monkeypatch, engine_overhead, tmp_path / "overhead.json", *arguments)
    costs = {(row["sampling params"], row["sequences"]): row["per sequence"] for row in report["steps"]}
    assert len(costs) == 6 and min(costs.values()) > 0
    assert report["gain"]["ratio"] > 0


@pytest.mark.slow
def test_prefix_caching_and_chunks(monkeypatch, tmp_path):
    arguments = ("--turns", 3, "--shape", "tiny", "--folder", tmp_path / "model")
    report = run(monkeypatch, prompt_gains, tmp_path / "gains.json", *arguments)
    assert report["prefix"]["gain"] > 0
    assert all(gap["longest gap ms"] > 0 for gap in report["gaps"])
