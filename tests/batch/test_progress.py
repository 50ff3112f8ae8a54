import sys
import threading
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from batch_answers import Clock, answer, evil_summary

from mindgen.batch.histogram import Histogram, Timeline
from mindgen.batch.progress import Progress
from mindgen.batch.summary import JobFacts, read_summary, write_summary
from mindgen.batch.totals import Totals, TotalsCounter
from mindgen.errors import CheckpointError

LENGTHS = np.random.default_rng(0).lognormal(5, 1.2, 5000).astype(int).tolist()


def histogram(lengths) -> Histogram:
    made = Histogram()
    for length in lengths:
        made.add(length)
    return made


def test_a_histogram_counts_like_numpy():
    found = histogram(LENGTHS)
    assert len(found.counts) <= 512 and found.width > 1
    edges = np.arange(len(found.counts) + 1) * found.width
    assert found.counts == np.histogram(LENGTHS, edges - 0.5)[0].tolist()
    assert (found.count, found.total) == (len(LENGTHS), sum(LENGTHS))
    assert (found.least, found.most, found.mean) == (min(LENGTHS), max(LENGTHS), pytest.approx(np.mean(LENGTHS)))
    for share in (0.5, 0.9, 0.99):
        assert abs(found.quantile(share) - np.quantile(LENGTHS, share, method="inverted_cdf")) < found.width


def test_histograms_add_up_whatever_their_widths():
    both = histogram([1, 2, 3]).plus(histogram(LENGTHS))
    assert both == histogram([1, 2, 3, *LENGTHS])
    assert Histogram().plus(histogram([7])) == histogram([7]) == histogram([7]).plus(Histogram())
    assert histogram([0]).count == 1 and Histogram().quantile(0.5) == 0 == Histogram().mean


def test_a_timeline_keeps_all_tokens_in_at_most_600_bins():
    timeline = Timeline()
    times = np.cumsum(np.random.default_rng(1).exponential(2.0, 3000))
    for place, seconds in enumerate(times):
        timeline.add(float(seconds), place, 1)
    assert 300 <= len(timeline.output_tokens) <= 600
    edges = np.arange(len(timeline.output_tokens) + 1) * timeline.width
    assert timeline.output_tokens == np.histogram(times, edges)[0].tolist()
    assert timeline.prompt_tokens == np.histogram(times, edges, weights=np.arange(3000))[0].tolist()


def test_a_snapshot_says_what_came_and_how_fast():
    clock = Clock()
    progress = Progress(200, 1, clock)
    assert progress.snapshot().eta is None and progress.snapshot().engine is None
    for row in range(100):  # 0.5 s apart: 50 s, of which the last 30 count for the rate of now
        clock.now += 0.5
        failure = {"error": "no", "error_kind": "prompt"} if row % 10 == 0 else {}
        progress.add(answer(row, 4, 8 if row >= 50 else 2, adapter_id="A1" if row % 4 else None, **failure))
        progress.row_done(failed=bool(failure))
    progress.observe(SimpleNamespace(requests_running=7, requests_waiting=9, kv_blocks=200, kv_blocks_used=50))
    found = progress.snapshot()
    assert (found.rows_total, found.rows_done, found.rows_failed, found.samples_done) == (200, 100, 10, 100)
    assert found.errors == {"prompt": 10}
    assert (found.prompt_tokens, found.output_tokens) == (400, 500)
    assert found.rate_overall == pytest.approx((8.0, 10.0))
    assert found.rate_now == pytest.approx(((61 * 4) / 30, (50 * 8 + 11 * 2) / 30))
    assert found.engine == (7, 9, 0.25)
    assert found.adapters == [("A1", 75), (None, 25)] and found.adapters_other == 0
    assert (found.elapsed, found.eta) == (pytest.approx(50), pytest.approx(50))
    clock.now += 60
    assert progress.snapshot().rate_now == (0.0, 0.0)


def test_a_resumed_run_tells_apart_what_it_has_done_itself(tmp_path):
    earlier = TotalsCounter()
    for row in range(3):
        earlier.add(answer(row, 10, 20, adapter_id="A1"))
        earlier.row_done()
    clock = Clock()
    progress = Progress(5, 1, clock)
    progress.resume(earlier.totals(7.0))
    clock.now += 2
    progress.add(answer(3, 1, 2, adapter_id="A1"))
    progress.row_done()
    found = progress.snapshot()
    assert (found.rows_before, found.rows_done, found.eta) == (3, 1, pytest.approx(2))
    progress.add(answer(4, 1, 2))
    assert progress.snapshot().eta == 0.0
    summary = progress.summary(JobFacts(model="m", model_digest="d", output="o", settings={"seed": "1"}), True)
    assert (summary.run.samples, summary.in_all.samples) == (2, 5)
    assert (summary.run.output_tokens, summary.in_all.output_tokens) == (4, 64)
    assert (summary.run.seconds, summary.in_all.seconds) == (2.0, 9.0)
    assert [(each.adapter_id, each.samples) for each in summary.in_all.adapters] == [("A1", 4), (None, 1)]
    assert summary.in_all.output_lengths == histogram([20, 20, 20, 2, 2])
    write_summary(tmp_path / "summary.json", summary)
    assert read_summary(tmp_path / "summary.json") == summary
    progress.add(answer(5))
    assert summary.run.samples == 2


def test_what_is_no_summary_is_refused(tmp_path):
    (tmp_path / "summary.json").write_text('{"rows": 3}')
    with pytest.raises(CheckpointError, match="is no summary of a batch job: .*missing required field"):
        read_summary(tmp_path / "summary.json")
    with pytest.raises(CheckpointError, match="No such file"):
        read_summary(tmp_path / "none.json")


def test_totals_are_the_same_in_one_go_and_in_parts():
    answers = [answer(row, row % 7, row, adapter_id=f"a{row % 5}", adapter_digest="d") for row in range(100)]
    whole, parts = TotalsCounter(), [TotalsCounter(), TotalsCounter()]
    for place, each in enumerate(answers):
        whole.add(each)
        parts[place % 2].add(each)
    first, second = (part.totals(1.0) for part in parts)
    before = msgspec.json.encode(first)
    assert first.plus(second) == whole.totals(2.0)
    assert msgspec.json.encode(first) == before and Totals().plus(first) == first


def test_memory_does_not_grow_with_rows_or_names():
    progress = Progress(None, 1, lambda: 0.0)
    for row in range(40_000):
        progress.add(answer(row, row, row, adapter_id=f"stranger {row}"))
    summary = progress.summary(JobFacts(model="m", model_digest="d", output="o"), False)
    assert len(summary.run.adapters) == 10_000 and summary.run.others.samples == 30_000
    found = progress.snapshot()
    assert len(found.adapters) == 20 and found.adapters_other == 39_980 and found.eta is None

    def size() -> int:
        return len(msgspec.json.encode(progress.summary(JobFacts(model="m", model_digest="d", output="o"), False)))

    before = size()
    repeated = [answer(row, row * 97 % 40_000, row * 89 % 40_000, adapter_id=f"new {row}") for row in range(100)]
    for _ in range(1000):
        for each in repeated:
            progress.add(each)
    assert size() < before * 1.01 and sys.getsizeof(progress._seconds) < 10_000


def test_one_thread_counts_while_another_looks():
    progress = Progress(20_000, 1)
    thread = threading.Thread(target=lambda: [progress.add(answer(row)) for row in range(20_000)])
    thread.start()
    seen = []
    while thread.is_alive():
        found = progress.snapshot()
        assert (found.prompt_tokens, found.output_tokens) == (3 * found.samples_done, 5 * found.samples_done)
        seen.append(found.samples_done)
    assert seen == sorted(seen) and progress.snapshot().samples_done == 20_000


def test_strange_names_survive_the_summary(tmp_path):
    write_summary(tmp_path / "summary.json", evil_summary())
    assert read_summary(tmp_path / "summary.json").in_all.errors == evil_summary().in_all.errors
