"""Guesses what follows a text from what followed its last words before: drafts without a second model.

From "prompt lookup decoding": answers often repeat parts of their prompt.
"""

from array import array
from collections.abc import Sequence

_ITEM_BYTES = array("i").itemsize
_WINDOW = 4096  # tokens that are looked through


def look_up(token_ids: Sequence[int], max_ngram: int, count: int) -> list[int]:
    """Up to `count` tokens that followed the latest earlier occurrence of the longest possible end of token_ids.

    Args:
        max_ngram: how many of the last tokens to look for at most; fewer are tried if they are not found.
    """
    if count < 1:
        return []
    tokens = array("i", token_ids[-_WINDOW:])
    memory = tokens.tobytes()
    for size in range(min(max_ngram, len(tokens) - 1), 0, -1):
        pattern = memory[-size * _ITEM_BYTES :]
        end = len(memory) - _ITEM_BYTES  # the last tokens themselves are no earlier occurrence
        while (found := memory.rfind(pattern, 0, end)) >= 0:
            if found % _ITEM_BYTES == 0:
                after = found // _ITEM_BYTES + size
                return tokens[after : after + count].tolist()
            end = found + len(pattern) - 1
    return []
