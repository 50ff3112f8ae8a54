"""What may follow a text, or must: drafts without a second model, from what followed its last words before.

From "prompt lookup decoding": answers often repeat parts of their prompt.
"""

from array import array
from collections.abc import Sequence as TokenIds

from mindgen.engine.sequence import Sequence

_ITEM_BYTES = array("i").itemsize
_WINDOW = 4096  # tokens that are looked through
_MOST_FORCED = 63  # whose logits are wanted in one step: each is as large as the vocabulary


def look_up(token_ids: TokenIds[int], max_ngram: int, count: int) -> list[int]:
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


def draft_tokens(sequence: Sequence, room: int) -> list[int]:
    """What may follow the sequence, or must, for the network to check along with its next token."""
    params = sequence.request.params
    num_generated = len(sequence.token_ids) - sequence.prompt_len
    if num_generated < len(params.forced_token_ids):
        most = min(room, _MOST_FORCED, sequence.request.max_len - len(sequence.token_ids) - 1)
        return list(params.forced_token_ids[num_generated : num_generated + max(most, 0)])
    if params.num_speculative_tokens == 0 or sequence.matcher is not None:
        return []
    wanted = min(params.num_speculative_tokens, room, sequence.request.max_len - len(sequence.token_ids) - 1)
    return look_up(sequence.token_ids, params.prompt_lookup_max, wanted)
