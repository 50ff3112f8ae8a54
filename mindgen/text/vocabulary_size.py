"""Whether a tokenizer is that of a model, as far as their sizes tell."""

from pathlib import Path

from mindgen.errors import ModelError
from mindgen.text.tokenizer import Tokenizer


def check_vocabulary_size(tokenizer: Tokenizer, vocab_size: int, model: str | Path) -> None:
    """A model may have more tokens than its tokenizer, as padding, and never fewer.

    Raises:
        ModelError: the tokenizer gives ids that the model of that name has no embedding of.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ModelError(
            f"{model}: the tokenizer has {tokenizer.vocab_size} tokens, and the model {vocab_size}: they are of "
            "different models; take the model's own tokenizer"
        )
