"""The figures of a comparison as texts, for the terminal and the page."""

from mindgen.batch.compare.comparison import ComparedFile, Comparison
from mindgen.batch.compare.intervals import Difference, Rate

DIFFERENCE_COLUMNS = ("b - a", "pairs", "mean of a", "mean of b", "mean difference", "95 % interval")


def rate_text(rate: Rate) -> str:
    """Like 12 of 40: 30.0 % (18.1 to 45.4)."""
    if rate.rate is None or rate.low is None or rate.high is None:
        return "no pairs"
    return f"{rate.count:,} of {rate.of:,}: {rate.rate:.1%} ({100 * rate.low:.1f} to {100 * rate.high:.1f})"


def difference_row(difference: Difference) -> list[str]:
    """In DIFFERENCE_COLUMNS."""
    numbers = [_number(value) for value in (difference.mean_a, difference.mean_b)]
    interval = "-" if difference.low is None else f"{_signed(difference.low)} to {_signed(difference.high)}"
    return [difference.name, f"{difference.pairs:,}", *numbers, _signed(difference.mean), interval]


def file_rows(comparison: Comparison) -> list[tuple[str, str, str]]:
    """What there is to say of both files; what would be 0 for both is left out."""
    a, b = comparison.a, comparison.b
    rows = [
        ("samples", a.samples, b.samples),
        ("failed", a.failed, b.failed),
        ("compared", a.compared, b.compared),
        ("only in this file", a.only_here, b.only_here),
        ("with a key that occurs several times here", a.duplicates, b.duplicates),
        ("with a key that occurs several times in the other file", a.duplicate_there, b.duplicate_there),
        ("without a key", a.without_key, b.without_key),
    ]
    always = {"samples", "failed", "compared"}
    return [(name, f"{one:,}", f"{other:,}") for name, one, other in rows if one or other or name in always]


def example_lines(comparison: Comparison) -> list[str]:
    """Some keys of the samples that were not compared."""
    lines = []
    for name, file in (("a", comparison.a), ("b", comparison.b)):
        for what, examples, count in _examples(file):
            if examples:
                keys = "; ".join(", ".join(key) for key in examples)
                lines.append(f"{what} {name}: {keys}" + ("; ..." if count > len(examples) else ""))
    return lines


def _examples(file: ComparedFile) -> list[tuple[str, list[list[str]], int]]:
    return [
        ("only in", file.only_here_examples, file.only_here),
        ("several times in", file.duplicate_examples, file.duplicate_keys),
    ]


def _number(value: float | None, sign: str = "") -> str:
    if not value:
        return "-" if value is None else "0"
    return f"{value:{sign},.4g}" if abs(value) < 1000 else f"{value:{sign},.1f}"


def _signed(value: float | None) -> str:
    return _number(value, "+")
