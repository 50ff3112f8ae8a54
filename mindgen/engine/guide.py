"""What the engine wants of a grammar that an output must follow."""

from typing import Protocol

import numpy as np

WORD_BITS = 32  # of a mask, a bit for each token


class Guide(Protocol):
    """Where one output stands in its grammar."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing but an end token may follow."""

    def fill_mask(self, mask: np.ndarray) -> None:
        """Sets the bits of the tokens that may come next in (num_mask_words(vocab_size),), and clears all others.

        Raises:
            RequestError: the grammar is too complex to go on.
        """

    def accept(self, token_id: int) -> bool:
        """Takes a token, unless the grammar refuses it: then nothing has changed."""

    def copy(self) -> "Guide":
        """For a fork of the sequence."""


def num_mask_words(vocab_size: int) -> int:
    """Words of 32 bits in a mask of so many tokens."""
    return -(-vocab_size // WORD_BITS)
