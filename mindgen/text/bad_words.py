"""Words that an answer must not contain, as sequences of tokens."""

from collections.abc import Iterable

from mindgen.errors import RequestError
from mindgen.text.tokenizer import Tokenizer


def bad_word_sequences(tokenizer: Tokenizer, words: Iterable[str]) -> list[tuple[int, ...]]:
    """The token sequences that spell the words, at the beginning of a text and inside it, with and without a space.

    Raises:
        RequestError: a word is empty, or has no tokens.
    """
    sequences: dict[tuple[int, ...], None] = {}
    for word in words:
        bare = word.lstrip() if isinstance(word, str) else ""
        spellings = [
            tokenizer.encode(bare, add_special_tokens=False),
            tokenizer.encode_fragment(bare),
            tokenizer.encode_fragment(f" {bare}"),
        ]
        if not bare or not all(spellings):
            raise RequestError(f"bad_words must be words, not {word!r}")
        sequences.update((tuple(spelling), None) for spelling in spellings)
    return list(sequences)
