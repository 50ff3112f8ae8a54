"""What a run of a job knows of itself while it goes on."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mindgen.batch.answer import Answer
from mindgen.batch.histogram import Timeline
from mindgen.batch.summary import BatchSummary, JobFacts
from mindgen.batch.totals import Totals, TotalsCounter

_WINDOW = 30  # seconds of which the rates of now are
_ADAPTERS_SHOWN = 20


class EngineLoad(Protocol):
    """What is looked at of EngineMetrics; with several replicas, of all of them."""

    @property
    def requests_running(self) -> int: ...

    @property
    def requests_waiting(self) -> int: ...

    @property
    def kv_blocks(self) -> int: ...

    @property
    def kv_blocks_used(self) -> int: ...


class TokenRate(NamedTuple):
    """Tokens per second, of the samples that ended."""

    prompt: float
    output: float


class EngineMoment(NamedTuple):
    """Requests that run and that wait, and the share of the KV cache that is in use, 0 to 1."""

    running: int
    waiting: int
    kv_share: float


class _Second(NamedTuple):
    number: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressSnapshot:
    """A moment of a run.

    Attributes:
        rows_total, samples_total: of the job; None where nobody has counted.
        rows_before, samples_before: that were there when the run began.
        rows_done, samples_done: in this run, those that failed included.
        rows_failed: in this run, those with a sample that failed.
        errors: samples of this run that failed, by kind.
        rate_now: over the last half minute.
        rate_overall: over the whole run.
        engine: None where it is not known, as of replicas on other machines.
        adapters: samples of this run by adapter (None is the base model), of the 20 busiest, and
        adapters_other: of all others together.
        eta: seconds to the end at the rate of this run; None as long as there is none.
        elapsed: seconds since the run began.
    """

    rows_total: int | None
    rows_before: int
    rows_done: int
    rows_failed: int
    samples_total: int | None
    samples_before: int
    samples_done: int
    errors: dict[str, int]
    prompt_tokens: int
    output_tokens: int
    rate_now: TokenRate
    rate_overall: TokenRate
    engine: EngineMoment | None
    adapters: list[tuple[str | None, int]]
    adapters_other: int
    eta: float | None
    elapsed: float


class Watcher(Protocol):
    """Who is told how a run goes; all calls come from one thread."""

    def begin(self, snapshot: ProgressSnapshot) -> None:
        """The model is loaded, and what earlier runs have done is known."""

    def update(self, snapshot: ProgressSnapshot) -> None:
        """As often as a second or ten times; what is too often to show, the watcher leaves out."""

    def say(self, line: str) -> None:
        """Something that people should read, which changes nothing."""

    def end(self, summary: BatchSummary) -> None:
        """The run is over, finished or not."""


class Progress:
    """Counts what ends. One thread may count while others look.

    Args:
        total_rows: of the job, those of earlier runs included; None if it is not known.
        n_samples: answers to each row.
        clock: seconds from some moment.
    """

    def __init__(self, total_rows: int | None, n_samples: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rows_total = total_rows
        self._samples_total = None if total_rows is None else total_rows * n_samples
        self._clock, self._started = clock, clock()
        self._lock = threading.Lock()
        self._earlier, self._run = Totals(), TotalsCounter()
        self._timeline = Timeline()
        self._seconds: deque[_Second] = deque()
        self._engine: EngineMoment | None = None

    def start(self) -> None:
        """Time counts from here, as the model is loaded."""
        with self._lock:
            self._started = self._clock()

    def resume(self, earlier: Totals) -> None:
        """Rows and samples of earlier runs that are not done again (a TotalsCounter makes it from their answers)."""
        with self._lock:
            self._earlier = earlier

    def add(self, answer: Answer) -> None:
        """A sample has ended."""
        with self._lock:
            self._run.add(answer)
            self._note_tokens(answer.prompt_tokens, answer.completion_tokens)

    def add_all(self, more: Totals) -> None:
        """Rows that have ended, as others have counted them."""
        with self._lock:
            self._run.add_all(more)
            self._note_tokens(more.prompt_tokens, more.output_tokens)

    def row_done(self, failed: bool = False) -> None:
        """All samples of a row have ended.

        Args:
            failed: at least one of them without an answer.
        """
        with self._lock:
            self._run.row_done(failed)

    def observe(self, load: EngineLoad) -> None:
        with self._lock:
            kv_share = load.kv_blocks_used / load.kv_blocks if load.kv_blocks else 0.0
            self._engine = EngineMoment(load.requests_running, load.requests_waiting, kv_share)

    def snapshot(self) -> ProgressSnapshot:
        """Takes up to a millisecond, with thousands of adapters."""
        with self._lock:
            run, elapsed = self._run.so_far, self._clock() - self._started
            adapters = [(each.adapter_id, each.samples) for each in self._run.busiest(_ADAPTERS_SHOWN)]
            return ProgressSnapshot(
                rows_total=self._rows_total,
                rows_before=self._earlier.rows,
                rows_done=run.rows,
                rows_failed=run.rows_failed,
                samples_total=self._samples_total,
                samples_before=self._earlier.samples,
                samples_done=run.samples,
                errors=dict(run.errors),
                prompt_tokens=run.prompt_tokens,
                output_tokens=run.output_tokens,
                rate_now=self._rate_now(elapsed),
                rate_overall=_rate(run.prompt_tokens, run.output_tokens, elapsed),
                engine=self._engine,
                adapters=adapters,
                adapters_other=run.samples - sum(samples for _, samples in adapters),
                eta=self._eta(elapsed),
                elapsed=elapsed,
            )

    def summary(self, job: JobFacts, finished: bool) -> BatchSummary:
        """The run so far.

        Args:
            finished: every row has ended, and the output is there.
        """
        with self._lock:
            run = self._run.totals(self._clock() - self._started)
            return BatchSummary(
                job=job,
                rows=self._rows_total,
                samples=self._samples_total,
                finished=finished,
                run=run,
                in_all=self._earlier.plus(run),
                throughput=self._timeline.copy(),
            )

    def _note_tokens(self, prompt_tokens: int, output_tokens: int) -> None:
        elapsed = self._clock() - self._started
        self._timeline.add(elapsed, prompt_tokens, output_tokens)
        number = int(elapsed)
        if self._seconds and self._seconds[-1].number == number:
            last = self._seconds.pop()
            prompt_tokens, output_tokens = last.prompt_tokens + prompt_tokens, last.output_tokens + output_tokens
        self._seconds.append(_Second(number, prompt_tokens, output_tokens))
        self._forget(number)

    def _forget(self, number: int) -> None:
        while self._seconds and self._seconds[0].number < number - _WINDOW:
            self._seconds.popleft()

    def _rate_now(self, elapsed: float) -> TokenRate:
        """Of whole seconds, and the one that has begun."""
        self._forget(int(elapsed))
        prompt = sum(second.prompt_tokens for second in self._seconds)
        output = sum(second.output_tokens for second in self._seconds)
        return _rate(prompt, output, min(elapsed, _WINDOW + elapsed % 1))

    def _eta(self, elapsed: float) -> float | None:
        if self._samples_total is None:
            return None
        done = self._run.so_far.samples
        left = self._samples_total - self._earlier.samples - done
        if left <= 0:
            return 0.0
        return left * elapsed / done if done else None


def _rate(prompt_tokens: int, output_tokens: int, seconds: float) -> TokenRate:
    return TokenRate(prompt_tokens / seconds, output_tokens / seconds) if seconds > 0 else TokenRate(0.0, 0.0)
