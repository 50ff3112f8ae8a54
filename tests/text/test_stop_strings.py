"""Stop strings, against a search of the full text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.errors import RequestError
from mindgen.text.stop_strings import StopMatcher

# Few letters, so that stop strings overlap themselves and each other.
TEXT = st.text("ab\n我", max_size=30)
STOPS = st.lists(st.text("ab\n我", min_size=1, max_size=6), max_size=4)


def full_search(text: str, stop: list[str], include: bool) -> tuple[str, str | None]:
    """The text and the reason, from looking at the growing text character by character."""
    for end in range(1, len(text) + 1):
        complete = [string for string in stop if text[:end].endswith(string)]
        if complete:
            longest = max(complete, key=len)
            return (text[:end] if include else text[: end - len(longest)]), longest
    return text, None


@settings(max_examples=1000, deadline=None)
@given(chunks=st.lists(TEXT, max_size=12), stop=STOPS, include=st.booleans())
def test_any_chunks_give_what_a_full_search_gives(chunks, stop, include):
    matcher = StopMatcher(stop, include)
    expected, reason = full_search("".join(chunks), stop, include)
    shown, given = "", ""
    for chunk in chunks:
        given += chunk
        shown += matcher.append(chunk)
        assert expected.startswith(shown)
        beginnings = [string[:length] for string in stop for length in range(len(string))]
        still_possible = max((len(part) for part in beginnings if given.endswith(part)), default=0)
        if matcher.stop_reason is None:  # no more is held back than has to be
            assert len(shown) == len(given) - still_possible
    assert shown + matcher.flush() == expected
    assert matcher.stop_reason == reason


def test_nothing_comes_after_the_stop():
    matcher = StopMatcher(["END"])
    assert [matcher.append(chunk) for chunk in ("one E", "N", "D two", "three")] == ["one ", "", "", ""]
    assert (matcher.stop_reason, matcher.flush()) == ("END", "")


def test_empty_stop_strings_are_refused():
    with pytest.raises(RequestError, match="empty"):
        StopMatcher(["a", ""])
