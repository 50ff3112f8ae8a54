"""Which words of two texts differ."""

import re
from difflib import SequenceMatcher

import msgspec

_MOST_LETTERS = 4000  # of a text; comparing takes the square of the time
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a text, and whether the other text has another one there."""

    text: str
    differs: bool


def differing_words(first: str, second: str) -> tuple[list[Piece], list[Piece]]:
    """The beginnings of both texts in pieces; joined they are these beginnings, of at most 4,000 letters."""
    left, right = _WORD.findall(first[:_MOST_LETTERS]), _WORD.findall(second[:_MOST_LETTERS])
    pieces: tuple[list[Piece], list[Piece]] = [], []
    for kind, start, end, other_start, other_end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        for into, words in ((pieces[0], left[start:end]), (pieces[1], right[other_start:other_end])):
            if words:
                into.append(Piece(text="".join(words), differs=kind != "equal"))
    return pieces
