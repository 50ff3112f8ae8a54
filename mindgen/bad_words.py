"""Words that an answer must not contain, as sequences of tokens."""

from collections.abc import Iterable, Sequence

from mindgen.errors import RequestError
from mindgen.tokenizer import Tokenizer


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


def banned_token_ids(sequences: Iterable[tuple[int, ...]], output_token_ids: Sequence[int]) -> list[int]:
    """The tokens that would complete one of the sequences if they came next."""
    num_output = len(output_token_ids)
    banned = [
        sequence[-1]
        for sequence in sequences
        if len(sequence) <= num_output + 1
        and tuple(output_token_ids[num_output + 1 - len(sequence) :]) == sequence[:-1]
    ]
    return sorted(set(banned))
