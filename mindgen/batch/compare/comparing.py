"""Joins two outputs by their keys. The files are read twice: once for digests and numbers, once for the few texts that
are shown, so memory grows with the samples and not with their texts."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import msgspec
import numpy as np

from mindgen.batch.compare.comparison import ComparedFile, Comparison, FinishReasons, SamplePair, Side
from mindgen.batch.compare.intervals import Difference, paired_difference, wilson
from mindgen.batch.compare.output_file import Columns, OutputFile, OutputSample
from mindgen.batch.compare.sample_table import SampleTable
from mindgen.batch.compare.words import differing_words

_USUAL_SCORES = ("score", "reward")
_EXAMPLES = 5
_MOST_REASONS = 100
_SKETCH_BITS = 64


class _Join:
    """Which samples of two tables belong together.

    Attributes:
        a, b: (P,) places in the tables, in the order of the first one.
    """

    def __init__(self, first: SampleTable, second: SampleTable) -> None:
        self.tables = first, second
        self._keys = _Keys(first), _Keys(second)
        one, other = self._keys
        _, at_a, at_b = np.intersect1d(one.single, other.single, assume_unique=True, return_indices=True)
        a, b = one.single_places[at_a], other.single_places[at_b]
        order = np.argsort(a)
        self.a, self.b = a[order], b[order]

    def duplicates(self, side: int) -> np.ndarray:
        """Places of the first sample of each key that occurs several times."""
        return self._keys[side].repeated_places

    def only_here(self, side: int) -> np.ndarray:
        """Places of samples whose key occurs once, and never in the other file."""
        own, other = self._keys[side], self._keys[1 - side]
        return own.single_places[~np.isin(own.single, other.all, assume_unique=True)]

    def facts(self, side: int, path: Path, shown: dict[int, OutputSample]) -> ComparedFile:
        table, keys, only_here = self.tables[side], self._keys[side], self.only_here(side)
        without_key, duplicates = int((~table.has_key).sum()), keys.num_repeated
        return ComparedFile(
            path=str(path),
            samples=len(table),
            failed=int(table.failed.sum()),
            without_key=without_key,
            duplicate_keys=len(keys.repeated_places),
            duplicates=duplicates,
            duplicate_there=len(table) - without_key - duplicates - len(only_here) - len(self.a),
            only_here=len(only_here),
            compared=len(self.a),
            duplicate_examples=_examples(self.duplicates(side), shown),
            only_here_examples=_examples(only_here, shown),
        )


class _Keys:
    """The keys of a table, sorted: all of them, and those that occur once."""

    def __init__(self, table: SampleTable) -> None:
        places = np.flatnonzero(table.has_key)
        self.all, first, counts = np.unique(table.keys[places], return_index=True, return_counts=True)
        self.single, self.single_places = self.all[counts == 1], places[first[counts == 1]]
        self.repeated_places = np.sort(places[first[counts > 1]])
        self.num_repeated = int(counts[counts > 1].sum())


def compare_outputs(first: Path, second: Path, columns: Columns, most_shown: int = 20) -> Comparison:
    """Compares the samples of two files that have the same key.

    Args:
        columns: scores are compared besides "score" and "reward", which are where both files have them.
        most_shown: pairs of texts that are shown.

    Raises:
        DataError: a file is not there, or damaged.
        UsageError: a file lacks a column.
    """
    columns = _with_usual_scores(first, second, columns)
    files = OutputFile(first, columns), OutputFile(second, columns)
    a, b = (SampleTable(file.samples(), columns.scores) for file in files)
    join = _Join(a, b)
    answered = ~(a.failed[join.a] | b.failed[join.b])
    differing = answered & (a.texts[join.a] != b.texts[join.b])
    distances = _distances(join)
    chosen = _most_different(join, differing, distances, most_shown)
    samples = [
        _collect(file, [*places[chosen], *join.duplicates(side)[:_EXAMPLES], *join.only_here(side)[:_EXAMPLES]])
        for side, (file, places) in enumerate(zip(files, (join.a, join.b), strict=True))
    ]
    reasons = _finish_reasons(join, answered)
    changed = sum(each.count for each in reasons if each.a != each.b)
    return Comparison(
        a=join.facts(0, first, samples[0]),
        b=join.facts(1, second, samples[1]),
        key=list(files[0].key),
        pairs=len(join.a),
        identical=wilson(int(answered.sum() - differing.sum()), int(answered.sum())),
        failed_both=int((a.failed[join.a] & b.failed[join.b]).sum()),
        failed_only_a=int((a.failed[join.a] & ~b.failed[join.b]).sum()),
        failed_only_b=int((~a.failed[join.a] & b.failed[join.b]).sum()),
        finish_changed=wilson(changed, int(answered.sum())),
        finish_reasons=reasons[:_MOST_REASONS],
        differences=_differences(join, columns),
        most_different=[
            _pair(samples[0][join.a[place]], samples[1][join.b[place]], float(distances[place]) / _SKETCH_BITS, columns)
            for place in chosen
        ],
    )


def _with_usual_scores(first: Path, second: Path, columns: Columns) -> Columns:
    names = set(OutputFile(first, columns).names) & set(OutputFile(second, columns).names)
    usual = [name for name in _USUAL_SCORES if name in names]
    return msgspec.structs.replace(columns, scores=list(dict.fromkeys([*columns.scores, *usual])))


def _distances(join: _Join) -> np.ndarray:
    """(P,) bits of the sketches that differ."""
    a, b = join.tables
    bits = (a.sketches[join.a] ^ b.sketches[join.b]).view(np.uint8).reshape(-1, 8)  # (P, 8 bytes)
    ones = np.array([byte.bit_count() for byte in range(256)], np.uint8)
    return ones[bits].sum(1)


def _most_different(join: _Join, differing: np.ndarray, distances: np.ndarray, most: int) -> list[int]:
    """Places in the join, by words and then by length."""
    a, b = join.tables
    places = np.flatnonzero(differing)
    lengths = np.abs(a.numbers["characters"][join.a[places]] - b.numbers["characters"][join.b[places]])
    order = np.lexsort((places, -lengths, -distances[places].astype(np.int64)))
    return [int(place) for place in places[order[:most]]]


def _collect(file: OutputFile, places: Iterable[int]) -> dict[int, OutputSample]:
    """The samples at these places of a file."""
    wanted = {int(place) for place in places}
    samples = islice(enumerate(file.samples()), max(wanted, default=-1) + 1)
    return {place: sample for place, sample in samples if place in wanted}


def _finish_reasons(join: _Join, answered: np.ndarray) -> list[FinishReasons]:
    a, b = join.tables
    names_a, names_b = list(a.reason_names), list(b.reason_names)
    codes = a.finish_reasons[join.a].astype(np.int64) * (len(names_b) or 1) + b.finish_reasons[join.b]
    found, counts = np.unique(codes[answered], return_counts=True)
    reasons = [
        FinishReasons(a=names_a[code // len(names_b)], b=names_b[code % len(names_b)], count=int(count))
        for code, count in zip(found, counts, strict=True)
    ]
    return sorted(reasons, key=lambda each: (-each.count, each.a or "", each.b or ""))


def _differences(join: _Join, columns: Columns) -> list[Difference]:
    """What no pair has a number for is left out, but for scores."""
    a, b = join.tables
    found = [
        paired_difference(name, values[join.a], b.numbers[name][join.b], a.rows[join.a])
        for name, values in a.numbers.items()
    ]
    return [each for each in found if each.pairs or each.name in columns.scores]


def _pair(first: OutputSample, second: OutputSample, distance: float, columns: Columns) -> SamplePair:
    pieces = differing_words(first.text or "", second.text or "")
    sides = [
        Side(text=sample.text or "", finish_reason=sample.finish_reason, pieces=own,
             scores={"tokens": sample.tokens, **dict(zip(columns.scores, sample.scores, strict=True))})
        for sample, own in zip((first, second), pieces, strict=True)
    ]  # fmt: skip
    return SamplePair(
        key=list(first.key or ()), sample=first.sample, prompt=first.prompt, distance=distance, a=sides[0], b=sides[1]
    )


def _examples(places: np.ndarray, shown: dict[int, OutputSample]) -> list[list[str]]:
    samples = [shown[int(place)] for place in places[:_EXAMPLES]]
    return [[*(sample.key or ()), str(sample.sample)] for sample in samples]
