"""bad_words: what may come next never completes one."""

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_tokenizers import KINDS, make_tokenizer

from mindgen.engine.sampling_row import SamplingRow, Vocabulary
from mindgen.errors import RequestError
from mindgen.sampling_params import SamplingParams
from mindgen.text.bad_words import bad_word_sequences
from mindgen.text.tokenizer import load_tokenizer


def banned_token_ids(sequences, output, vocab_size: int) -> list[int]:
    """What the sampler keeps back."""
    row = SamplingRow(SamplingParams(), [], Vocabulary(vocab_size), 0, sequences)
    for token_id in output:
        row.append(token_id)
    record = row.record
    banned = (ctypes.c_int32 * record.num_banned).from_address(record.banned) if record.num_banned else []
    return sorted(set(banned))


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory):
    return load_tokenizer(make_tokenizer(request.param, tmp_path_factory.mktemp(request.param)))


@pytest.mark.parametrize("text", ["{}", "I {} it", "我{}", "Hello  {}.", "x\n{}"])
@pytest.mark.parametrize("word", ["Beijing", "two", "北京", "🙂"])
def test_the_word_is_caught_at_its_last_token(tokenizer, text, word):
    """Wherever it stands, and however the tokens before it end."""
    ids = tokenizer.encode(text.format(word), add_special_tokens=False)
    sequences = bad_word_sequences(tokenizer, [word])
    assert all(word in tokenizer.decode(sequence) for sequence in sequences)
    assert any(
        ids[place] in banned_token_ids(sequences, ids[:place], tokenizer.vocab_size) for place in range(len(ids))
    )


@settings(max_examples=300, deadline=None)
@given(
    sequences=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple), max_size=5),
    output=st.lists(st.integers(0, 3), max_size=8),
)
def test_banned_are_the_tokens_that_complete_a_sequence(sequences, output):
    expected = [
        token_id
        for token_id in range(4)
        if any(tuple([*output, token_id][-len(sequence) :]) == sequence for sequence in sequences)
    ]
    assert banned_token_ids(sequences, output, 4) == expected


@pytest.mark.parametrize("word", ["", "  ", None, 5])
def test_words_must_be_words(tokenizer, word):
    with pytest.raises(RequestError, match="bad_words"):
        bad_word_sequences(tokenizer, [word])
