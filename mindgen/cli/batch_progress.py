"""What `mindgen batch` shows of its run on standard error: a picture on a terminal, else a line now and then."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from mindgen.batch.progress import EngineMoment, ProgressSnapshot, TokenRate, Watcher
from mindgen.batch.summary import BatchSummary
from mindgen.batch.totals import Totals
from mindgen.cli.tables import printable

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_PICTURES = 0.25
_ADAPTERS_IN_A_LINE = 5
_WIDTH = 120  # where there is no terminal to ask


@contextmanager
def watch(file: TextIO) -> Iterator[Watcher]:
    """The watcher that fits the file; a terminal is left as it was, whatever happens."""
    console = Console(file=file, width=None if file.isatty() else _WIDTH, markup=False, highlight=False)
    if not console.is_terminal or console.is_dumb_terminal:
        yield _Lines(console)
        return
    live = Live(console=console, auto_refresh=False, transient=True)
    try:
        yield _Picture(console, live)
    finally:
        live.stop()


class _Lines:
    """One line every ten seconds, of words like "rows=12/100" that a search finds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0.0

    def begin(self, snapshot: ProgressSnapshot) -> None:
        self._show(snapshot)

    def update(self, snapshot: ProgressSnapshot) -> None:
        if snapshot.elapsed - self._shown >= _SECONDS_BETWEEN_LINES:
            self._show(snapshot)

    def say(self, line: str) -> None:
        self._print(line)

    def end(self, summary: BatchSummary) -> None:
        self._console.print(final_table(summary))

    def _show(self, snapshot: ProgressSnapshot) -> None:
        self._shown = snapshot.elapsed
        self._print(progress_line(snapshot))

    def _print(self, line: str) -> None:
        self._console.print(f"mindgen: {printable(line)}", soft_wrap=True)


class _Picture:
    """Bar and figures, drawn again where they stand; lines that are said go above."""

    def __init__(self, console: Console, live: Live) -> None:
        self._console, self._live = console, live
        self._shown = 0.0

    def begin(self, snapshot: ProgressSnapshot) -> None:
        self._live.start()
        self._show(snapshot)

    def update(self, snapshot: ProgressSnapshot) -> None:
        if snapshot.elapsed - self._shown >= _SECONDS_BETWEEN_PICTURES:
            self._show(snapshot)

    def say(self, line: str) -> None:
        self._console.print(f"mindgen: {printable(line)}", soft_wrap=True)

    def end(self, summary: BatchSummary) -> None:
        self._live.stop()
        self._console.print(final_table(summary))

    def _show(self, snapshot: ProgressSnapshot) -> None:
        self._shown = snapshot.elapsed
        self._live.update(progress_picture(snapshot), refresh=True)


def progress_line(snapshot: ProgressSnapshot) -> str:
    """All of a snapshot in one line."""
    words = [
        f"rows={_rows(snapshot)}", f"failed={snapshot.rows_failed}",
        f"prompt_tokens_per_s={snapshot.rate_now.prompt:.0f}", f"output_tokens_per_s={snapshot.rate_now.output:.0f}",
    ]  # fmt: skip
    if (engine := snapshot.engine) is not None:
        words += [f"running={engine.running}", f"waiting={engine.waiting}", f"kv_cache={engine.kv_share:.0%}"]
    words += [f"elapsed={_duration(snapshot.elapsed)}", f"eta={_duration(snapshot.eta)}"]
    if snapshot.adapters:
        words.append(f"adapters={_adapters(snapshot, _ADAPTERS_IN_A_LINE, ':', ',')}")
    if snapshot.errors:
        words.append("errors=" + ",".join(f"{kind}:{count}" for kind, count in _by_count(snapshot.errors)))
    return " ".join(words)


def progress_picture(snapshot: ProgressSnapshot) -> RenderableType:
    """All of a snapshot in a bar and a table."""
    done, total = snapshot.rows_before + snapshot.rows_done, snapshot.rows_total
    bar = Table.grid(padding=(0, 1))
    bar.add_row(ProgressBar(total, done, width=40), f"{_rows(snapshot)} rows", f"eta {_duration(snapshot.eta)}")
    figures = Table.grid(padding=(0, 2))
    figures.add_column(style="dim")
    for name, text in {
        "tokens/s": f"{_rate(snapshot.rate_now)}   (whole run: {_rate(snapshot.rate_overall)})",
        "engine": None if snapshot.engine is None else _engine(snapshot.engine),
        "elapsed": _duration(snapshot.elapsed)
        + (f", {snapshot.rows_before:,} rows from earlier runs" if snapshot.rows_before else ""),
        "adapters": _adapters(snapshot, len(snapshot.adapters), " ", "  "),
    }.items():
        if text is not None:
            figures.add_row(name, Text(text, overflow="fold"))
    if snapshot.errors:
        kinds = "  ".join(f"{kind} {count:,}" for kind, count in _by_count(snapshot.errors))
        figures.add_row("failed", Text(f"{snapshot.rows_failed:,} rows: {kinds}", style="red"))
    return Group(bar, figures)


def final_table(summary: BatchSummary) -> Table:
    """What this run has done, beside what is there in all, and why rows failed."""
    columns = [("this run", summary.run)]
    if summary.in_all.samples != summary.run.samples:
        columns.append(("in all", summary.in_all))
    state = "" if summary.finished else " (not finished)"
    table = Table(title=f"{printable(summary.job.output)}{state}", title_justify="left")
    table.add_column("")
    for name, _ in columns:
        table.add_column(name, justify="right", overflow="fold")

    def add(name: str, values: list[str]) -> None:
        table.add_row(name, *values)

    of_rows = "" if summary.rows is None else f" of {summary.rows:,}"
    add("rows", [f"{totals.rows:,}{of_rows}" for _, totals in columns])
    add("samples", [f"{totals.samples:,}" for _, totals in columns])
    add("prompt tokens", [f"{totals.prompt_tokens:,}" for _, totals in columns])
    add("output tokens", [f"{totals.output_tokens:,}" for _, totals in columns])
    add("output tokens/s", [_overall(totals) for _, totals in columns])
    add("time", [_duration(totals.seconds) for _, totals in columns])
    add("rows failed", [f"{totals.rows_failed:,}" for _, totals in columns])
    for kind in sorted({kind for _, totals in columns for kind in totals.errors}):
        add(f"  samples failed: {printable(kind)}", [f"{totals.errors.get(kind, 0):,}" for _, totals in columns])
    add("model digest", [printable(summary.job.model_digest)])
    return table


def _rows(snapshot: ProgressSnapshot) -> str:
    done = snapshot.rows_before + snapshot.rows_done
    if snapshot.rows_total is None:
        return f"{done}"
    share = f" ({done / snapshot.rows_total:.1%})" if snapshot.rows_total else ""
    return f"{done}/{snapshot.rows_total}{share}"


def _adapters(snapshot: ProgressSnapshot, most: int, between: str, separator: str) -> str:
    shown = snapshot.adapters[:most]
    rest = sum(samples for _, samples in snapshot.adapters[most:]) + snapshot.adapters_other
    parts = [f"{'base' if name is None else printable(name)}{between}{samples}" for name, samples in shown]
    return separator.join([*parts, f"others{between}{rest}"] if rest else parts)


def _engine(moment: EngineMoment) -> str:
    return f"{moment.running:,} running, {moment.waiting:,} waiting, KV cache {moment.kv_share:.0%}"


def _by_count(errors: dict[str, int]) -> list[tuple[str, int]]:
    return sorted(errors.items(), key=lambda item: -item[1])


def _rate(rate: TokenRate) -> str:
    return f"{rate.prompt:,.0f} of prompts, {rate.output:,.0f} of outputs"


def _overall(totals: Totals) -> str:
    return f"{totals.output_tokens / totals.seconds:,.1f}" if totals.seconds else "-"


def _duration(seconds: float | None) -> str:
    return "?" if seconds is None else str(timedelta(seconds=round(seconds)))
