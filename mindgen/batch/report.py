"""The report of a batch job: its summary as a page."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mindgen.batch.charts import Bar, Line, bar_chart, line_chart, short_number
from mindgen.batch.histogram import Histogram, Timeline
from mindgen.batch.html_page import make_page, write_page
from mindgen.batch.summary import BatchSummary
from mindgen.batch.totals import AdapterTotals, Totals

_POINTS = 150
_BARS = 40
_SHARE_SHOWN = 0.995  # of all lengths; the longest ones are one bar
_ADAPTERS = 100


@dataclass(frozen=True, slots=True)
class _AdapterRow:
    name: str
    digest: str
    values: list[str]


def write_report(path: Path, summary: BatchSummary) -> None:
    """
    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    write_page(path, make_report(summary))


def make_report(summary: BatchSummary) -> str:
    """A page of HTML that is whole in itself."""
    in_all, run = summary.in_all, summary.run
    is_resumed = in_all.samples != run.samples
    columns = [("this run", run), ("in all", in_all)] if is_resumed else [("this run", run)]
    return make_page("report.html", {
        "title": Path(summary.job.output).name or summary.job.output,
        "summary": summary,
        "mindgen_version": summary.job.mindgen_version,
        "tiles": _tiles(summary),
        "throughput": throughput_chart(summary.throughput, run.seconds),
        "is_resumed": is_resumed,
        "lengths": [
            ("Prompts, in tokens", length_chart(in_all.prompt_lengths, 0, "prompts"), _figures(in_all.prompt_lengths)),
            ("Outputs, in tokens", length_chart(in_all.output_lengths, 1, "outputs"), _figures(in_all.output_lengths)),
        ],
        "columns": columns,
        "counts": _counts([totals for _, totals in columns]),
        "errors": _errors(in_all),
        "adapters": _adapters(in_all),
        "facts": _facts(summary),
    })  # fmt: skip


def throughput_chart(timeline: Timeline, seconds: float) -> Markup:
    """Tokens per second over time.

    Args:
        seconds: of the run; its last bin may not be over.
    """
    bins = len(timeline.output_tokens)
    joined = -(-bins // _POINTS) if bins else 1
    width = timeline.width * joined

    def rates(tokens: list[int]) -> list[float]:
        sums = [sum(tokens[start : start + joined]) for start in range(0, bins, joined)]
        spans = [max(min(width, seconds - place * width), timeline.width / 2) for place in range(len(sums))]
        return [count / span for count, span in zip(sums, spans, strict=True)]

    lines = [Line("prompts", rates(timeline.prompt_tokens)), Line("outputs", rates(timeline.output_tokens))]
    return line_chart(lines, width, "tokens per second over time")


def length_chart(lengths: Histogram, series: int, what: str) -> Markup:
    """A histogram of at most 41 bars.

    Args:
        series: which of the colours.
        what: has these lengths.
    """
    end = lengths.quantile(_SHARE_SHOWN) // lengths.width + 1  # bins that are shown
    joined = -(-end // _BARS)
    width = joined * lengths.width
    bars = []
    for start in range(0, end, joined):
        count, first = sum(lengths.counts[start : start + joined]), start * lengths.width
        span = f"{first:,}" if width == 1 else f"{first:,} to {first + width - 1:,}"
        bars.append(Bar(first, first + width, count, f"{span} tokens: {count:,} {what}"))
    rest = sum(lengths.counts[-(-end // joined) * joined :])
    if rest:
        first = int(bars[-1].end)
        bars.append(Bar(first, first + width, rest, f"{first:,} tokens and more: {rest:,} {what}", is_rest=True))
    return bar_chart(bars, series, f"how many {what} have which length")


def _figures(lengths: Histogram) -> str:
    if not lengths.counts:
        return "None."
    values = ", ".join(f"{share:.0%} have at most {lengths.quantile(share):,}" for share in (0.5, 0.9, 0.99))
    return f"Mean {lengths.mean:,.1f}; {values}; the longest has {lengths.most:,}."


def _tiles(summary: BatchSummary) -> list[tuple[str, str, str]]:
    """Name, figure, and what stands below it."""
    in_all, run = summary.in_all, summary.run
    failed = f"{in_all.rows_failed / in_all.rows:.2%}" if in_all.rows else ""
    return [
        ("rows", f"{in_all.rows:,}", "" if summary.rows is None else f"of {summary.rows:,}"),
        ("rows failed", f"{in_all.rows_failed:,}", failed),
        ("prompt tokens", short_number(in_all.prompt_tokens), ""),
        ("output tokens", short_number(in_all.output_tokens), ""),
        ("output tokens/s", f"{run.output_tokens / run.seconds:,.0f}" if run.seconds else "-", "of this run"),
        ("time", str(timedelta(seconds=round(in_all.seconds))), "of all runs"),
    ]


def _counts(columns: list[Totals]) -> list[tuple[str, list[str]]]:
    return [
        ("rows", [f"{totals.rows:,}" for totals in columns]),
        ("rows with a failed sample", [f"{totals.rows_failed:,}" for totals in columns]),
        ("samples", [f"{totals.samples:,}" for totals in columns]),
        ("samples failed", [f"{totals.failed:,}" for totals in columns]),
        ("prompt tokens", [f"{totals.prompt_tokens:,}" for totals in columns]),
        ("output tokens", [f"{totals.output_tokens:,}" for totals in columns]),
        ("time", [str(timedelta(seconds=round(totals.seconds))) for totals in columns]),
    ]


def _errors(totals: Totals) -> list[tuple[str, str, str]]:
    kinds = sorted(totals.errors.items(), key=lambda item: -item[1])
    return [(kind, f"{count:,}", f"{count / totals.samples:.2%}") for kind, count in kinds if totals.samples]


def _adapters(totals: Totals) -> list[_AdapterRow]:
    """The busiest ones, and a row for all others."""
    rest = AdapterTotals(adapter_id=None)
    for each in (*totals.adapters[_ADAPTERS:], totals.others):
        rest.add(each)
    rows = [_row("base model" if each.adapter_id is None else each.adapter_id, each)
            for each in totals.adapters[:_ADAPTERS]]  # fmt: skip
    return [*rows, _row("others", rest)] if rest.samples else rows


def _row(name: str, totals: AdapterTotals) -> _AdapterRow:
    numbers = totals.samples, totals.failed, totals.prompt_tokens, totals.output_tokens
    return _AdapterRow(name, totals.digest or "", [f"{number:,}" for number in numbers])


def _facts(summary: BatchSummary) -> list[tuple[str, Any]]:
    job = summary.job
    return [
        ("model", job.model), ("model digest", job.model_digest), ("output", job.output), *job.settings.items(),
    ]  # fmt: skip
