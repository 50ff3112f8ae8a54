"""What a comparison finds, as it is written to JSON; a reader can rely on these names while `schema` is the same."""

from typing import Literal

import msgspec

from mindgen.batch.compare.intervals import Difference, Rate
from mindgen.batch.compare.words import Piece


class ComparedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file's samples: those without a key, with a key that occurs several times here or there, that the other file
    has not, and that are compared, are all of them.

    Attributes:
        failed: samples without an answer.
        duplicate_keys: keys that occur several times here, of as many samples as duplicates says.
        duplicate_there: samples whose key occurs once here and several times in the other file.
        duplicate_examples, only_here_examples: some of these keys; the last part is the sample's number.
    """

    path: str
    samples: int
    failed: int
    without_key: int
    duplicate_keys: int
    duplicates: int
    duplicate_there: int
    only_here: int
    compared: int
    duplicate_examples: list[list[str]]
    only_here_examples: list[list[str]]


class FinishReasons(msgspec.Struct, frozen=True, kw_only=True):
    """How many samples ended for which reason here and there; None where a sample failed, or the file does not say."""

    a: str | None
    b: str | None
    count: int


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One of the two answers.

    Attributes:
        pieces: the beginning of the text, with the words marked that the other one has not.
        scores: by name, with tokens.
    """

    text: str
    finish_reason: str | None
    scores: dict[str, float | None]
    pieces: list[Piece]


class SamplePair(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers to one prompt.

    Attributes:
        distance: of the words of both, from 0 for the same to about 0.5 for nothing in common; an estimate.
    """

    key: list[str]
    sample: int
    prompt: str | None
    distance: float
    a: Side
    b: Side


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two outputs, a and b.

    Attributes:
        key: the columns that tell rows apart.
        identical: pairs with the same text, of those where both have one.
        failed_both, failed_only_a, failed_only_b: pairs.
        finish_changed: pairs with another reason, of those where both have a text.
        finish_reasons: the most frequent first.
        differences: b against a, in characters, tokens, mean logprob and each score.
        most_different: pairs whose words differ most.
    """

    schema: Literal["mindgen.batch.compare/1"] = "mindgen.batch.compare/1"
    a: ComparedFile
    b: ComparedFile
    key: list[str]
    pairs: int
    identical: Rate
    failed_both: int
    failed_only_a: int
    failed_only_b: int
    finish_changed: Rate
    finish_reasons: list[FinishReasons]
    differences: list[Difference]
    most_different: list[SamplePair]
