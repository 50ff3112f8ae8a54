"""95 % confidence intervals of rates and of mean differences."""

import math

import msgspec
import numpy as np

_NORMAL = 1.959963984540054  # the normal distribution's quantile at 97.5 %


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How many of how many, and within what the true share lies; None without any."""

    count: int
    of: int
    rate: float | None
    low: float | None
    high: float | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A number of the second file's samples against the first's, pair by pair.

    Attributes:
        name: what is compared.
        pairs: where both have it.
        mean_a, mean_b: over these; None without any.
        mean: of b - a.
        low, high: within what the true mean difference lies; None with fewer than two rows.
    """

    name: str
    pairs: int
    mean_a: float | None
    mean_b: float | None
    mean: float | None
    low: float | None
    high: float | None


def wilson(count: int, of: int) -> Rate:
    """Wilson's score interval (E. B. Wilson, Probable inference, the law of succession, and statistical inference,
    JASA 22, 1927): (p + z^2/2n -+ z sqrt(p(1 - p)/n + z^2/4n^2)) / (1 + z^2/n)."""
    if not of:
        return Rate(count=count, of=of, rate=None, low=None, high=None)
    share, z2 = count / of, _NORMAL**2
    middle = share + z2 / (2 * of)
    half = _NORMAL * math.sqrt(share * (1 - share) / of + z2 / (4 * of**2))
    scale = 1 + z2 / of
    low, high = max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)
    return Rate(count=count, of=of, rate=share, low=low if count else 0.0, high=high if count < of else 1.0)


def paired_difference(name: str, first: np.ndarray, second: np.ndarray, rows: np.ndarray) -> Difference:
    """The mean of second - first, with Student's t interval of one degree of freedom less than there are rows.

    Samples of one row resemble each other, so the standard error is the clustered one,
    sqrt(C / (C - 1)) sqrt(sum over rows of (sum over the row's samples of (d - mean))^2) / n with C rows
    (E. Miller, Adding Error Bars to Evals, arXiv 2411.00640, 2024, section 2.2 and 3.3, with the usual correction of
    A. C. Cameron and D. L. Miller, JHR 50, 2015, for few clusters). With one sample a row this is s / sqrt(n).

    Args:
        first, second: (P,) float64; NaN where one has no number.
        rows: (P,) what is equal for samples of one row.
    """
    there = np.isfinite(first) & np.isfinite(second)
    first, second, rows = first[there], second[there], rows[there]
    count = len(first)
    if not count:
        return Difference(name=name, pairs=0, mean_a=None, mean_b=None, mean=None, low=None, high=None)
    differences = second - first
    mean = float(differences.mean())
    means = {"mean_a": float(first.mean()), "mean_b": float(second.mean()), "mean": mean}
    _, cluster = np.unique(rows, return_inverse=True)
    sums = np.bincount(cluster, weights=differences - mean)  # (C,)
    if len(sums) < 2:
        return Difference(name=name, pairs=count, **means, low=None, high=None)
    error = math.sqrt(len(sums) / (len(sums) - 1) * float(sums @ sums)) / count
    half = t_quantile(len(sums) - 1) * error
    return Difference(name=name, pairs=count, **means, low=mean - half, high=mean + half)


def t_quantile(degrees: int) -> float:
    """Student's t at 97.5 %: in closed form for 1 and 2 degrees of freedom, else by the expansion 26.7.5 of Abramowitz
    and Stegun, Handbook of Mathematical Functions, whose error is below 0.2 % then."""
    if degrees == 1:
        return math.tan(0.475 * math.pi)
    if degrees == 2:
        return 2 * 0.475 / math.sqrt(2 * 0.975 * 0.025)
    z = _NORMAL
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum(term / degrees ** (place + 1) for place, term in enumerate(terms))
