"""Whether a tokenizer is that of a model, as far as their sizes tell."""

from pathlib import Path

from mindgen.errors import ModelError
from mindgen.text.tokenizer import Tokenizer


def check_vocabulary_size(tokenizer: Tokenizer, vocab_size: int, model: str | Path) -> None:
    """A model may have more tokens than its tokenizer, as padding, and fewer by special ones alone: many tokenizers
    have got a [PAD] that the model was never trained with, and a prompt that names it is refused by itself.

    Raises:
        ModelError: the tokenizer gives ids for text that the model of that name has no embedding of.
    """
    if any(token_id not in tokenizer.special_ids for token_id in range(vocab_size, tokenizer.vocab_size)):
        raise ModelError(
            f"{model}: the tokenizer has {tokenizer.vocab_size} tokens, and the model {vocab_size}: they are of "
            "different models; take the model's own tokenizer"
        )
