"""How several things are shared out among several, in their order."""

from itertools import pairwise


def even_shares(count: int, num_shares: int) -> list[range]:
    """Each one's share of 0 to count - 1; where they do not divide, the first ones have one more."""
    share, rest = divmod(count, num_shares)
    ends = [place * share + min(place, rest) for place in range(num_shares + 1)]
    return [range(first, end) for first, end in pairwise(ends)]
