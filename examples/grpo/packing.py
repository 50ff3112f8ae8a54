"""A prompt and all answers to it as one sequence, in which the prompt is computed once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from mindspore import Tensor

_UNSEEN = -1e9  # what is added to the score of a token that is not seen


@dataclass(frozen=True, slots=True)
class PackedSize:
    """To which groups are padded, as MindSpore compiles for each shape: T tokens, N targets."""

    num_tokens: int
    num_targets: int

    @classmethod
    def of(cls, longest_prompt: int, group_size: int, max_tokens: int) -> "PackedSize":
        """The least that is enough."""
        return cls(longest_prompt + group_size * (max_tokens - 1), group_size * max_tokens)


class PackedGroup(NamedTuple):
    """The prompt's tokens and, one behind the other, those of all answers; targets are the tokens of the answers.

    Attributes:
        tokens, positions: (T,) int32; each answer's positions go on from the prompt's.
        mask: (T, T), added to the score of each key for each query: an answer sees the prompt and itself.
        places: (N,) int32, in tokens, of what stands before each target.
        targets: (N,) int32 token ids.
    """

    tokens: Tensor
    positions: Tensor
    mask: Tensor
    places: Tensor
    targets: Tensor


def pack(prompt_ids: Sequence[int], answers: Sequence[Sequence[int]], size: PackedSize) -> PackedGroup:
    """Of answers none of which is empty; what is padded is 0."""
    tokens, positions = list(prompt_ids), list(range(len(prompt_ids)))
    owners = [0] * len(prompt_ids)  # the number of the answer that a token belongs to, from 1
    places: list[int] = []
    for number, answer in enumerate(answers, 1):
        read = answer[:-1]  # nothing comes after the last token
        places += [len(prompt_ids) - 1, *range(len(tokens), len(tokens) + len(read))]
        tokens += read
        positions += range(len(prompt_ids), len(prompt_ids) + len(read))
        owners += [number] * len(read)
    owner = padded(owners, size.num_tokens, np.int32)
    is_seen = np.tri(size.num_tokens, dtype=bool) & ((owner == 0) | (owner == owner[:, None]))
    targets = [token for answer in answers for token in answer]
    return PackedGroup(
        tokens=Tensor(padded(tokens, size.num_tokens, np.int32)),
        positions=Tensor(padded(positions, size.num_tokens, np.int32)),
        mask=Tensor(np.where(is_seen, 0, _UNSEEN).astype(np.float32)),
        places=Tensor(padded(places, size.num_targets, np.int32)),
        targets=Tensor(padded(targets, size.num_targets, np.int32)),
    )


def padded(values: Sequence[float], length: int, dtype: type) -> np.ndarray:
    """(length,), with zeros at the end."""
    result = np.zeros(length, dtype)
    result[: len(values)] = values
    return result
