"""What a tokenizer.model needs beside sentencepiece's own calls."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from mindgen.errors import ModelError
from mindgen.text.tokenizer_config import ConfiguredToken

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

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
