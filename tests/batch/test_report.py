import re
from xml.etree import ElementTree

import pytest
from batch_answers import EVIL, answer, evil_summary
from web_page import WebPage

from mindgen.batch.histogram import Histogram, Timeline
from mindgen.batch.progress import Progress
from mindgen.batch.report import length_chart, make_report, throughput_chart, write_report
from mindgen.batch.summary import JobFacts
from mindgen.batch.totals import TotalsCounter


def elements(chart: str, tag: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(f"<div>{chart}</div>").iter(tag))


def test_strangers_text_stays_text_and_nothing_is_loaded(tmp_path):
    write_report(tmp_path / "report.html", evil_summary())
    page = WebPage((tmp_path / "report.html").read_text())
    assert page.loads == [] and "script" not in page.tags
    assert page.text.count(EVIL) >= 5  # adapter, kind of error, model, setting and its value
    assert "not finished" in page.text and "prefers-color-scheme: dark" in page.text
    assert page.tags.count("svg") == 3


def test_figures_are_those_of_the_summary():
    page = WebPage(make_report(evil_summary()))
    words = "".join(page.text.split())
    assert "rows6of10" in words and "rowsfailed116.67%" in words
    assert "basemodel" in words and "thisrun" in words and "inall" not in words


def test_a_resumed_run_shows_both_and_an_empty_one_shows_nothing():
    facts = JobFacts(model="m", model_digest="d", output="o")
    progress = Progress(0, 1, lambda: 0.0)
    assert "No sample failed." in WebPage(make_report(progress.summary(facts, True))).text
    earlier = TotalsCounter()
    earlier.add(answer(0, 100_000, 1))
    progress.resume(earlier.totals(3.0))
    assert "in all" in WebPage(make_report(progress.summary(facts, True))).text


def test_bars_are_as_high_as_their_counts():
    lengths = Histogram()
    for length, count in {0: 5, 10: 20, 19: 10, 500: 1}.items():
        for _ in range(count * 10):
            lengths.add(length)
    bars = elements(length_chart(lengths, 0, "prompts"), "rect")
    counts = [int(re.search(r": ([\d,]+) prompts", bar.find("title").text)[1].replace(",", "")) for bar in bars]
    assert sum(counts) == 360 and len(bars) <= 41
    scale = {float(bar.get("height")) / count for bar, count in zip(bars, counts, strict=True) if count}
    assert max(scale) == pytest.approx(min(scale), rel=0.01)


def test_the_longest_lengths_are_one_bar():
    lengths = Histogram()
    for _ in range(1000):
        lengths.add(20)
    lengths.add(400)
    titles = [bar.find("title").text for bar in elements(length_chart(lengths, 1, "outputs"), "rect")]
    assert titles[-1] == "21 tokens and more: 1 outputs" and "20 tokens: 1,000 outputs" in titles


def test_the_line_holds_the_rates():
    timeline = Timeline()
    for second in range(10):
        timeline.add(second + 0.5, 100, 50 if second < 5 else 200)
    _, outputs = elements(throughput_chart(timeline, 10.0), "path")
    heights = [float(height) for height in re.findall(r"V([\d.]+)", outputs.get("d"))]
    bottom = 260 - 30  # of the plane
    ratio = [round((bottom - height) / (bottom - heights[0]), 2) for height in heights]
    assert ratio == [1.0] * 5 + [4.0] * 5


@pytest.mark.parametrize("seconds", [0.3, 7, 300, 40_000, 3e6])
def test_the_axis_of_time_has_some_round_marks(seconds):
    timeline = Timeline()
    timeline.add(seconds, 1, 1)
    marks = [each.text for each in elements(throughput_chart(timeline, seconds), "text")]
    times = [mark for mark in marks if re.fullmatch(r"\d+ (s|min|h)", mark)]
    assert 1 <= len(times) <= 11
