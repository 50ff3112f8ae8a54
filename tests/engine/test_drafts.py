"""Guesses against a search written down as the words say it."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.engine.drafts import look_up

TOKENS = st.one_of(
    st.lists(st.integers(0, 2), max_size=40),
    st.lists(st.sampled_from([0, 1, 256, 257, 65536, 16777216, 2**31 - 1]), max_size=40),  # bytes alike at odd places
)


def naive(token_ids: list[int], max_ngram: int, count: int) -> list[int]:
    for size in range(max_ngram, 0, -1):
        pattern = token_ids[len(token_ids) - size :]
        for start in range(len(token_ids) - size - 1, -1, -1):
            if token_ids[start : start + size] == pattern:
                return token_ids[start + size : start + size + count]
    return []


@settings(max_examples=1000, deadline=None)
@given(TOKENS, st.integers(1, 6), st.integers(0, 8))
def test_equals_a_naive_search(token_ids, max_ngram, count):
    assert look_up(token_ids, max_ngram, count) == naive(token_ids, max_ngram, count)


def test_the_latest_of_the_longest():
    assert look_up([1, 2, 3, 9, 2, 3, 8, 3, 7, 1, 2, 3], 3, 2) == [9, 2]
    assert look_up([1, 2, 3, 9, 2, 3, 8, 3, 7, 1, 2, 3], 2, 2) == [8, 3]
    assert look_up([1, 2, 3, 9, 2, 3, 8, 3, 7, 1, 2, 3], 1, 2) == [7, 1]


def test_what_repeats_itself_is_continued():
    assert look_up([5, 6, 5, 6, 5], 3, 4) == [6, 5]
    assert look_up([4, 4, 4, 4], 2, 3) == [4]


def test_only_the_last_tokens_are_looked_through():
    long_ago = [1, 2, 3, *[0] * 5000, 1, 2]
    assert look_up(long_ago, 2, 1) == []
    assert look_up([1, 2, 3, *[0] * 4000, 1, 2], 2, 1) == [3]
