"""benchmarks/batch_simulation.py: its clock and its faults, in a small job."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import batch_simulation
import pytest
from batch_files import Plan
from batch_simulation import Simulation

PLAN = Plan(
    workers=20, rows=400_000, part_rows=500, rows_per_second=5.0, speed_spread=0.0, stragglers=0.0, losses_per_hour=0.0,
    seconds_to_replace=100.0, slots=32, output_tokens=100, seed=1,
)  # fmt: skip


def test_equal_workers_that_do_not_end_take_the_time_that_the_rows_take():
    outcome = Simulation(PLAN).run()
    assert outcome.ideal_hours == pytest.approx(400_000 / (20 * 5) / 3600)
    assert outcome.hours == pytest.approx(outcome.ideal_hours, rel=1e-9)  # 40 parts for each
    assert outcome.decisions == 2 * PLAN.num_parts and outcome.workers_lost == outcome.rows_redone == 0


def test_losses_cost_the_time_of_a_new_worker_and_what_was_in_flight():
    outcome = Simulation(replace(PLAN, losses_per_hour=1.0, speed_spread=0.1, stragglers=0.1)).run()
    assert 10 <= outcome.workers_lost <= 40  # of 20 workers in 1.1 hours
    assert 0 < outcome.rows_redone <= outcome.workers_lost * PLAN.slots
    assert outcome.decisions == 2 * (PLAN.num_parts + outcome.parts_taken_up)
    lost_hours = outcome.workers_lost * PLAN.seconds_to_replace / 3600 / PLAN.workers
    last_parts = 2 * PLAN.part_rows / (0.4 * PLAN.rows_per_second) / 3600
    assert outcome.ideal_hours < outcome.hours < outcome.ideal_hours + 2 * lost_hours + last_parts


def test_the_command_prints_and_writes_the_figures(monkeypatch, tmp_path: Path, capsys):
    words = ["--workers", "5", "--rows", "20000", "--part_rows", "500", "--json", str(tmp_path / "figures.json")]
    monkeypatch.setattr(sys, "argv", ["batch_simulation", *words])
    batch_simulation.main()
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["decisions"] == 80 and figures["manifest_bytes"] < 1000
    assert 1000 < figures["row_bytes"] < 2500  # 4 letters for each of 300 tokens, and what is said about them
    assert figures["output_terabytes"] == pytest.approx(
        (20_000 * figures["row_bytes"] + 40 * figures["header_bytes"]) / 1e12
    )
    assert "row_bytes" in capsys.readouterr().out
