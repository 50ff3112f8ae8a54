"""What a tokenizer.model needs beside sentencepiece's own calls."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mindgen.errors import ModelError
from mindgen.system.protobuf import read_fields
from mindgen.text.tokenizer_config import ConfiguredToken

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

_TRAINER, _NORMALIZER, _BPE = 2, 3, 2
# normalizer_spec {add_dummy_prefix: false}: of a field that is there twice, protobuf takes the last.
_NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"


def read_processors(path: Path) -> tuple["SentencePieceProcessor", "SentencePieceProcessor"]:
    """The model as it is, and one that puts no space before texts.

    Raises:
        ModelError: the file is damaged.
    """
    from sentencepiece import SentencePieceProcessor

    as_is, without_prefix = SentencePieceProcessor(), SentencePieceProcessor()
    try:
        content = path.read_bytes()
        as_is.LoadFromSerializedProto(content)
        without_prefix.LoadFromSerializedProto(content + _NO_DUMMY_PREFIX)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{path} is no usable sentencepiece model: {error}") from error
    return as_is, without_prefix


@dataclass(frozen=True, slots=True)
class Piece:
    """A token of a model.

    Attributes:
        kind: as sentencepiece counts them: 1 is normal, then unknown, control, user defined, unused, byte.
    """

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What a tokenizer.model says beside its pieces, sentencepiece's defaults where it says nothing.

    Attributes:
        charsmap: what is done to characters before, compiled; empty for nothing.
    """

    is_bpe: bool
    puts_spaces_behind: bool
    charsmap: bytes
    adds_dummy_prefix: bool
    removes_extra_whitespaces: bool
    escapes_whitespaces: bool


def read_spec(path: Path) -> ModelSpec:
    """As sentencepiece_model.proto numbers the fields.

    Raises:
        ModelError, CheckpointError: the file is damaged.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from error
    parts = {number: value for number, value in read_fields(content) if number in (_TRAINER, _NORMALIZER)}
    trainer, normalizer = (
        {} if isinstance(part, int) else dict(read_fields(part))
        for part in (parts.get(number, np.zeros(0, np.uint8)) for number in (_TRAINER, _NORMALIZER))
    )
    charsmap = normalizer.get(2, b"")
    return ModelSpec(
        is_bpe=trainer.get(3) == _BPE,
        puts_spaces_behind=bool(trainer.get(24, 0)),
        charsmap=b"" if isinstance(charsmap, int) else bytes(charsmap),
        adds_dummy_prefix=bool(normalizer.get(3, 1)),
        removes_extra_whitespaces=bool(normalizer.get(4, 1)),
        escapes_whitespaces=bool(normalizer.get(5, 1)),
    )


def read_pieces(processor: "SentencePieceProcessor") -> list[Piece]:
    """All of the model's own tokens, by id."""
    is_kind = {
        2: processor.IsUnknown, 3: processor.IsControl, 5: processor.IsUnused, 6: processor.IsByte,
    }  # fmt: skip
    kinds = [next((kind for kind, is_ in is_kind.items() if is_(id_)), 1) for id_ in range(processor.GetPieceSize())]
    return [Piece(processor.IdToPiece(id_), processor.GetScore(id_), kind) for id_, kind in enumerate(kinds)]


def control_tokens(processor: "SentencePieceProcessor") -> dict[int, ConfiguredToken]:
    """The model's own tokens that stand for no text, by id."""
    ids = (id_ for id_ in range(processor.GetPieceSize()) if processor.IsControl(id_) or processor.IsUnknown(id_))
    return {id_: ConfiguredToken(processor.IdToPiece(id_), id_) for id_ in ids}


def place_tokens(processor: "SentencePieceProcessor", tokens: Iterable[ConfiguredToken]) -> dict[int, ConfiguredToken]:
    """The tokens by id: those without one have that of the model's piece, or the next behind all others."""
    placed: dict[int, ConfiguredToken] = {}
    for token in tokens:
        token_id = token.token_id
        if token_id is None:
            token_id = processor.PieceToId(token.content)
            if processor.IdToPiece(token_id) != token.content:
                token_id = max([processor.GetPieceSize() - 1, *placed]) + 1
        placed[token_id] = token
    return placed


def names_pattern(tokens: Iterable[ConfiguredToken]) -> re.Pattern[str]:
    """Finds tokens by their names, of which each is a group, longest first, with the spaces that they take along."""
    alternatives = [
        (r"\s*" if token.lstrip else "")
        + (r"(?<!\w)" if token.single_word else "")
        + f"({re.escape(token.content)})"
        + (r"(?!\w)" if token.single_word else "")
        + (r"\s*" if token.rstrip else "")
        for token in sorted(tokens, key=lambda token: -len(token.content))
    ]
    return re.compile("|".join(alternatives) or r"(?!)")
