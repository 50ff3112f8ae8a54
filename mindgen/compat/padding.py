"""Rows of token ids without their padding, where no mask tells what is padding."""

from collections.abc import Sequence
from itertools import takewhile


def without_padding(
    rows: Sequence[list[int]], pad: int | None, is_only_padding: bool, num_own: tuple[int, int] = (0, 0)
) -> list[list[int]]:
    """The rows without the padding at their two ends.

    Args:
        pad: the token that fills rows; None strips nothing.
        is_only_padding: no prompt begins or ends with it. Else only rows of one length with different numbers of it at
            an end show that it is padding there; all others are kept as they are.
        num_own: how many of it the tokenizer itself puts before and behind a prompt, which padding comes outside of.
    """
    if pad is None:
        return list(rows)
    before = _num_padding(rows, pad, is_only_padding, num_own[0])
    behind = _num_padding([row[::-1] for row in rows], pad, is_only_padding, num_own[1])
    return [row[first : len(row) - last] for row, first, last in zip(rows, before, behind, strict=True)]


def count_leading(row: Sequence[int], token_id: int | None) -> int:
    return sum(1 for _ in takewhile(lambda each: each == token_id, row))


def _num_padding(rows: Sequence[list[int]], pad: int, is_only_padding: bool, num_own: int) -> list[int]:
    """How many tokens at the beginning of each row are padding."""
    numbers = [count_leading(row, pad) for row in rows]
    if is_only_padding:
        return numbers
    if len({len(row) for row in rows}) > 1 or len(set(numbers)) == 1:
        return [0] * len(rows)
    num_kept = min(num_own, *numbers)
    return [number - num_kept for number in numbers]
