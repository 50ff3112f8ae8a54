"""What has come out of a job, in numbers; as small for a hundred million rows as for one."""

from collections.abc import Sequence
from heapq import nsmallest

import msgspec

from mindgen.batch.answer import Answer
from mindgen.batch.histogram import Histogram

_MOST_ADAPTERS = 10_000  # names come with the rows, right or wrong ones


class AdapterTotals(msgspec.Struct, kw_only=True):
    """Of one adapter's content.

    Attributes:
        adapter_id: None for the base model.
        digest: of its content, where an answer said it.
        samples: that have ended, those that failed included.
    """

    adapter_id: str | None
    digest: str | None = None
    samples: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0

    def add(self, more: "AdapterTotals") -> None:
        self.samples += more.samples
        self.failed += more.failed
        self.prompt_tokens += more.prompt_tokens
        self.output_tokens += more.output_tokens


class Totals(msgspec.Struct, kw_only=True):
    """Of a run, or of several.

    Attributes:
        rows: that have ended, those that failed included.
        rows_failed: those with a sample that failed.
        samples: likewise.
        errors: samples that failed, by kind.
        prompt_tokens: of each sample; a prompt counts as often as it is answered.
        seconds: in which they came.
        prompt_lengths, output_lengths: in tokens, of the samples that did not fail.
        adapters: at most 10,000; what more there are is counted in
        others: whose name and digest mean nothing.
    """

    rows: int = 0
    rows_failed: int = 0
    samples: int = 0
    errors: dict[str, int] = {}
    prompt_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    prompt_lengths: Histogram = msgspec.field(default_factory=Histogram)
    output_lengths: Histogram = msgspec.field(default_factory=Histogram)
    adapters: list[AdapterTotals] = []
    others: AdapterTotals = msgspec.field(default_factory=lambda: AdapterTotals(adapter_id=None))

    @property
    def failed(self) -> int:
        return sum(self.errors.values())

    def plus(self, other: "Totals") -> "Totals":
        """Of what both have counted, which is nothing in common."""
        both = TotalsCounter(self)
        both.add_all(other)
        return both.totals(self.seconds + other.seconds)


class AdapterCounter:
    """Finds where to count an adapter, by its name and digest."""

    def __init__(self, adapters: Sequence[AdapterTotals], others: AdapterTotals) -> None:
        self._adapters = {(each.adapter_id, each.digest): each for each in adapters}
        self.others = others

    def place(self, adapter_id: str | None, digest: str | None) -> AdapterTotals:
        """Its own, or that of all others where there are too many."""
        own = self._adapters.get((adapter_id, digest))
        if own is None:
            if len(self._adapters) >= _MOST_ADAPTERS:
                return self.others
            own = self._adapters[adapter_id, digest] = AdapterTotals(adapter_id=adapter_id, digest=digest)
        return own

    def by_samples(self) -> list[AdapterTotals]:
        """The busiest first."""
        return sorted(self._adapters.values(), key=_busiest_first)

    def busiest(self, most: int) -> list[AdapterTotals]:
        return nsmallest(most, self._adapters.values(), key=_busiest_first)


class TotalsCounter:
    """Counts answers as they come.

    Args:
        totals: to go on from; it is not changed.
    """

    def __init__(self, totals: Totals | None = None) -> None:
        self.so_far = Totals() if totals is None else _copy(totals)  # but for the adapters
        self._adapters = AdapterCounter(self.so_far.adapters, self.so_far.others)

    def add(self, answer: Answer) -> None:
        totals, failed = self.so_far, int(answer.error is not None or answer.error_kind is not None)
        totals.samples += 1
        totals.prompt_tokens += answer.prompt_tokens
        totals.output_tokens += answer.completion_tokens
        adapter = self._adapters.place(answer.adapter_id, answer.adapter_digest)
        adapter.samples += 1
        adapter.failed += failed
        adapter.prompt_tokens += answer.prompt_tokens
        adapter.output_tokens += answer.completion_tokens
        if failed:
            kind = answer.error_kind or "engine"
            totals.errors[kind] = totals.errors.get(kind, 0) + 1
            return
        totals.prompt_lengths.add(answer.prompt_tokens)
        totals.output_lengths.add(answer.completion_tokens)

    def add_all(self, more: Totals) -> None:
        """What others have counted; takes some 50 us."""
        totals = self.so_far
        totals.rows += more.rows
        totals.rows_failed += more.rows_failed
        totals.samples += more.samples
        for kind, count in more.errors.items():
            totals.errors[kind] = totals.errors.get(kind, 0) + count
        totals.prompt_tokens += more.prompt_tokens
        totals.output_tokens += more.output_tokens
        totals.prompt_lengths.add_all(more.prompt_lengths)
        totals.output_lengths.add_all(more.output_lengths)
        for each in more.adapters:
            self._adapters.place(each.adapter_id, each.digest).add(each)
        self._adapters.others.add(more.others)

    def row_done(self, failed: bool = False) -> None:
        self.so_far.rows += 1
        self.so_far.rows_failed += failed

    def busiest(self, most: int) -> list[AdapterTotals]:
        return self._adapters.busiest(most)

    def totals(self, seconds: float) -> Totals:
        """All that was counted, in these seconds; a copy."""
        adapters, others = self._adapters.by_samples(), self._adapters.others
        return _copy(msgspec.structs.replace(self.so_far, seconds=seconds, adapters=adapters, others=others))


def _copy(totals: Totals) -> Totals:
    return msgspec.convert(msgspec.to_builtins(totals), Totals)


def _busiest_first(adapter: AdapterTotals) -> tuple[int, str, str]:
    return -adapter.samples, adapter.adapter_id or "", adapter.digest or ""
