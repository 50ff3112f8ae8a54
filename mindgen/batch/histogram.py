"""Counts over lengths and over time, in memory that does not grow: when the bins are full, each two become one."""

from collections.abc import Sequence
from operator import add

import msgspec

_LENGTH_BINS = 512
_TIME_BINS = 600


class Histogram(msgspec.Struct, kw_only=True):
    """How many of something have which length.

    Attributes:
        width: of a bin; bin i counts lengths of i * width to (i + 1) * width - 1.
        counts: by bin, up to the last one that is not empty.
        total: the sum of all lengths.
        least, most: of all lengths; 0 where there are none.
    """

    width: int = 1
    counts: list[int] = []
    total: int = 0
    least: int = 0
    most: int = 0

    @property
    def count(self) -> int:
        return sum(self.counts)

    @property
    def mean(self) -> float:
        count = self.count
        return self.total / count if count else 0.0

    def add(self, length: int) -> None:
        self.least = min(self.least, length) if self.counts else length
        self.most = max(self.most, length)
        self.total += length
        while length // self.width >= _LENGTH_BINS:
            self.counts, self.width = _halve(self.counts), 2 * self.width
        place = length // self.width
        if place >= len(self.counts):
            self.counts.extend([0] * (place + 1 - len(self.counts)))
        self.counts[place] += 1

    def quantile(self, share: float) -> int:
        """The length that this share of all does not exceed, to within the width of a bin."""
        left = share * self.count
        for place, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return min((place + 1) * self.width - 1, self.most)
        return self.most

    def plus(self, other: "Histogram") -> "Histogram":
        """Of the lengths of both."""
        both = msgspec.structs.replace(self, counts=list(self.counts))
        both.add_all(other)
        return both

    def add_all(self, other: "Histogram") -> None:
        """The lengths of another one."""
        if not other.counts:
            return
        self.least = min(self.least, other.least) if self.counts else other.least
        self.most = max(self.most, other.most)
        self.total += other.total
        width = max(self.width, other.width)
        counts, more = _widened(self, width), _widened(other, width)
        counts.extend([0] * (len(more) - len(counts)))
        counts[: len(more)] = map(add, counts, more)
        self.width, self.counts = width, counts


class Timeline(msgspec.Struct, kw_only=True):
    """Tokens over time.

    Attributes:
        width: of a bin, in seconds.
        prompt_tokens, output_tokens: by bin, from the start, of the samples that ended then.
    """

    width: float = 1.0
    prompt_tokens: list[int] = []
    output_tokens: list[int] = []

    def copy(self) -> "Timeline":
        prompt_tokens, output_tokens = list(self.prompt_tokens), list(self.output_tokens)
        return Timeline(width=self.width, prompt_tokens=prompt_tokens, output_tokens=output_tokens)

    def add(self, seconds: float, prompt_tokens: int, output_tokens: int) -> None:
        """Seconds are those since the start."""
        while seconds // self.width >= _TIME_BINS:
            self.prompt_tokens, self.output_tokens = _halve(self.prompt_tokens), _halve(self.output_tokens)
            self.width *= 2
        place = int(seconds // self.width)
        missing = [0] * (place + 1 - len(self.prompt_tokens))
        self.prompt_tokens.extend(missing)
        self.output_tokens.extend(missing)
        self.prompt_tokens[place] += prompt_tokens
        self.output_tokens[place] += output_tokens


def _halve(counts: Sequence[int]) -> list[int]:
    return [sum(counts[place : place + 2]) for place in range(0, len(counts), 2)]


def _widened(histogram: Histogram, width: int) -> list[int]:
    """Widths are powers of two."""
    counts = histogram.counts
    for _ in range((width // histogram.width).bit_length() - 1):
        counts = _halve(counts)
    return counts
