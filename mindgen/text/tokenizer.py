"""Text to token ids and back: a tokenizer.json, vocab.json and merges.txt, sentencepiece's tokenizer.model, or a file
of tiktoken's."""

import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.errors import ModelError
from mindgen.system.checks import require_text
from mindgen.system.json_file import read_json_object
from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.fast_tokenizer import (
    BYTE_OF_CHARACTER,
    add_tokens,
    check_class,
    read_tokenizer_json,
    read_vocab_and_merges,
)
from mindgen.text.sentencepiece_file import control_tokens, names_pattern, place_tokens, read_processors
from mindgen.text.tiktoken_file import SUFFIX, is_tiktoken, read_tiktoken
from mindgen.text.tokenizer_config import (
    read_configured_tokens,
    read_special_tokens,
    read_tokenizer_class,
    read_tokenizer_config,
)

if TYPE_CHECKING:
    from tokenizers import Tokenizer as FastTokenizer

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_SYMBOL = "\u2581"
_SENTENCEPIECE_CLASSES = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")
# Texts that merge with nothing that follows them, in most vocabularies.
_ANCHORS = ("\n", "\x02", "\u9f98", "<")


class Tokenizer(ABC):
    """What mindgen asks of a tokenizer.

    Attributes:
        kind: what people call it.
        vocab_size: one more than the largest id.
        special_ids: tokens like <s> that stand for no text of their own.
        special_tokens: the configuration's names for some of them: {"bos_token": "<s>", ...}.
        bos_id, eos_id: None where the tokenizer has none.
        num_leading_spaces_dropped: how many spaces at the beginning of a whole text decoding leaves out.
        ids_that_keep_spaces: tokens whose spaces are text even there.
        replaces_each_byte: a broken character decodes to a replacement character for each of its bytes, not to one.
    """

    kind: str
    vocab_size: int
    special_ids: frozenset[int]
    special_tokens: dict[str, str]
    bos_id: int | None
    eos_id: int | None
    num_leading_spaces_dropped: int
    ids_that_keep_spaces: frozenset[int] = frozenset()
    replaces_each_byte: bool

    def __init__(self) -> None:
        self._token_bytes: dict[int, bytes] = {}

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of a text; special tokens written in it are found. By default those that the model expects around
        a prompt are added.

        Raises:
            RequestError: it is no text, or holds half a surrogate pair.
        """
        if text != "":
            require_text("the text", text)
        return self._encode(text, add_special_tokens)

    @abstractmethod
    def _encode(self, text: str, add_special_tokens: bool) -> list[int]: ...

    @abstractmethod
    def token_id(self, name: str) -> int | None:
        """The id of the token with this name, as "<s>"; None where there is none."""

    @abstractmethod
    def _read_token(self, token_id: int) -> bytes: ...

    def token_bytes(self, token_id: int) -> bytes:
        """What the token adds to a text, in UTF-8, be it part of a character; nothing for an id without a token."""
        found = self._token_bytes.get(token_id)
        if found is None:
            found = self._token_bytes[token_id] = self._read_token(token_id)
        return found

    def decode(self, token_ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        detokenizer = IncrementalDetokenizer(self, (), skip_special_tokens)
        return detokenizer.append(token_ids) + detokenizer.flush()

    def encode_fragment(self, text: str) -> list[int]:
        """The ids of a text that stands in the middle of another: without special tokens or an added space."""
        for anchor in _ANCHORS:
            before, ids = (self.encode(part, add_special_tokens=False) for part in (anchor, anchor + text))
            rest = ids[len(before) :]
            if ids[: len(before)] == before and b"".join(map(self.token_bytes, rest)) == text.encode():
                return rest
        return self.encode(text, add_special_tokens=False)


class HuggingFaceTokenizer(Tokenizer):
    """One of the tokenizers package."""

    def __init__(self, tokenizer: "FastTokenizer", config: dict[str, Any]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self.kind = f"tokenizers {type(tokenizer.model).__name__}"
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = bool(config.get("split_special_tokens"))
        decoder = self._tokenizer.decoder
        kinds = _decoder_kinds(json.loads(decoder.__getstate__())) if decoder is not None else set()
        self.is_byte_level = "ByteLevel" in kinds
        self._has_byte_tokens = "ByteFallback" in kinds
        self.replaces_each_byte = self._has_byte_tokens
        self.vocab_size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self.special_tokens = read_special_tokens(config)
        self.bos_id = self._tokenizer.token_to_id(self.special_tokens.get("bos_token", ""))
        self.eos_id = self._tokenizer.token_to_id(self.special_tokens.get("eos_token", ""))
        self.num_leading_spaces_dropped = 0 if self.is_byte_level else self._find_leading_space()

    def description(self) -> dict[str, Any]:
        """What its tokenizer.json would say."""
        described: dict[str, Any] = json.loads(self._tokenizer.to_str())
        return described

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)

    def token_id(self, name: str) -> int | None:
        return self._tokenizer.token_to_id(name)

    def _read_token(self, token_id: int) -> bytes:
        token = self._tokenizer.id_to_token(token_id) if 0 <= token_id < self.vocab_size else None
        if token is None:
            return b""
        if self.is_byte_level:
            known = [BYTE_OF_CHARACTER.get(character) for character in token]
            return token.encode() if None in known else bytes(byte for byte in known if byte is not None)
        byte = _BYTE_TOKEN.fullmatch(token) if self._has_byte_tokens else None
        if byte is not None:
            return bytes([int(byte[1], 16)])
        before = self._decode(self._anchor_id)
        return self._decode(self._anchor_id, token_id).removeprefix(before).encode()

    def _decode(self, *token_ids: int) -> str:
        return self._tokenizer.decode(list(token_ids), skip_special_tokens=False)

    @cached_property
    def _anchor_id(self) -> int:
        """A token with text, whichever: tokens behind it show the text that they have inside a sentence."""
        return next((token_id for token_id in range(self.vocab_size) if self._decode(token_id).isalnum()), 0)

    def _find_leading_space(self) -> int:
        ids = (token_id for token_id in range(self.vocab_size) if self.token_bytes(token_id).startswith(b" "))
        first = next(ids, None)
        return 0 if first is None or self._decode(first).encode() == self.token_bytes(first) else 1


class SentencePieceTokenizer(Tokenizer):
    """A tokenizer.model; the configuration tells whether prompts begin with BOS (Llama's do) or end with EOS, and which
    tokens were added behind the model's own. Without "legacy" it is of the time before that option, so true."""

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        super().__init__()
        self.kind = "sentencepiece"
        self.processor, self._without_prefix = read_processors(path)
        self._size = self.processor.GetPieceSize()
        own = {
            "bos_token": self.processor.bos_id(),
            "eos_token": self.processor.eos_id(),
            "unk_token": self.processor.unk_id(),
        }
        config = {name: self.processor.IdToPiece(id_) for name, id_ in own.items() if id_ >= 0} | config
        added = place_tokens(self.processor, read_configured_tokens(path.parent, config))
        self.tokens = control_tokens(self.processor) | added
        self._ids_of_names = {token.content: token_id for token_id, token in self.tokens.items()}
        splits_special = config.get("split_special_tokens")
        self._names = names_pattern(each for each in self.tokens.values() if not (splits_special and each.special))
        self.vocab_size = max([self._size - 1, *self.tokens]) + 1
        self.special_ids = frozenset(token_id for token_id, token in self.tokens.items() if token.special)
        self.special_tokens = read_special_tokens(config)
        self.bos_id = self.token_id(self.special_tokens.get("bos_token", ""))
        self.eos_id = self.token_id(self.special_tokens.get("eos_token", ""))
        self._prefix = [self.bos_id] if self.bos_id is not None and config.get("add_bos_token", True) else []
        self._suffix = [self.eos_id] if self.eos_id is not None and config.get("add_eos_token", False) else []
        self.adds_space = config.get("add_prefix_space") is not False
        self.spaces_each_segment = config.get("legacy") is not False
        self.replaces_each_byte = True
        self.num_leading_spaces_dropped = self._find_leading_spaces() if self.adds_space else 0
        no_symbols = (self.processor.IsByte, self.processor.IsUnknown)
        self.ids_that_keep_spaces = frozenset(id_ for id_ in range(self._size) if any(is_(id_) for is_ in no_symbols))

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        ids: list[int] = []
        end = 0
        for match in self._names.finditer(text):
            ids += [
                *self._encode_segment(text[end : match.start()], end == 0),
                self._ids_of_names[match[match.lastindex or 0]],
            ]
            end = match.end()
        ids += self._encode_segment(text[end:], end == 0)
        return [*self._prefix, *ids, *self._suffix] if add_special_tokens else ids

    def _encode_segment(self, text: str, is_first: bool) -> list[int]:
        """Legacy configurations put a space before the text behind a special token as well, as before the first."""
        if self.adds_space and (is_first or self.spaces_each_segment):
            return self.processor.EncodeAsIds(text)
        if text.startswith((" ", _SPACE_SYMBOL)):  # which a model may strip at the beginning
            unknown = self.processor.IdToPiece(self.processor.unk_id())
            before, ids = (self._without_prefix.EncodeAsIds(part) for part in (unknown, unknown + text))
            if ids[: len(before)] == before:
                return ids[len(before) :]
        return self._without_prefix.EncodeAsIds(text)

    def token_id(self, name: str) -> int | None:
        piece = self.processor.PieceToId(name)
        return self._ids_of_names.get(name, piece if self.processor.IdToPiece(piece) == name else None)

    def _read_token(self, token_id: int) -> bytes:
        token = self.tokens.get(token_id)
        if token is None and not 0 <= token_id < self._size:
            return b""
        if token is None and self.processor.IsByte(token_id):
            return bytes([int(self.processor.IdToPiece(token_id)[3:-1], 16)])
        text = self.processor.IdToPiece(token_id) if token is None else token.content
        return text.replace(_SPACE_SYMBOL, " ").encode()

    def _find_leading_spaces(self) -> int:
        pieces = (id_ for id_ in range(self._size) if self.processor.IdToPiece(id_).startswith(_SPACE_SYMBOL))
        first = next(pieces, None)
        if first is None or self.processor.DecodeIds([first]).encode() == self.token_bytes(first):
            return 0
        lone = self.processor.PieceToId(_SPACE_SYMBOL)
        drops_all = lone != self.processor.unk_id() and not self.processor.DecodeIds([lone, lone])
        return sys.maxsize if drops_all else 1


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder.

    Raises:
        ModelError: there is none, it is damaged, or it is of a class that is not known.
    """
    config = read_tokenizer_config(folder)
    if (folder / "tokenizer.json").is_file():
        tokenizer = read_tokenizer_json(folder / "tokenizer.json", config)
        add_tokens(tokenizer, read_configured_tokens(folder, config), folder)
        return HuggingFaceTokenizer(tokenizer, config)
    ranks = _tiktoken_file(folder)
    if ranks is not None:
        return HuggingFaceTokenizer(*read_tiktoken(ranks, config, _model_type(folder)))
    if (folder / "tokenizer.model").is_file():
        check_class(folder, read_tokenizer_class(config), "tokenizer.model", _SENTENCEPIECE_CLASSES)
        return SentencePieceTokenizer(folder / "tokenizer.model", config)
    if (folder / "vocab.json").is_file():
        return HuggingFaceTokenizer(*read_vocab_and_merges(folder, config, _model_type(folder)))
    raise ModelError(
        f"{folder} has neither tokenizer.json nor tokenizer.model, nor vocab.json and merges.txt, nor a *{SUFFIX}"
    )


def _tiktoken_file(folder: Path) -> Path | None:
    """The only file in tiktoken's form, where no file of another kind goes before it."""
    model = folder / "tokenizer.model"
    if model.is_file():
        return model if is_tiktoken(model) else None
    found = [] if (folder / "vocab.json").is_file() else sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) > 1:
        raise ModelError(f"{folder} has several tokenizers, {', '.join(path.name for path in found)}: leave one")
    return found[0] if found else None


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    return str(read_json_object(path, ModelError).get("model_type", "")) if path.is_file() else ""


def _decoder_kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder["type"]}.union(*map(_decoder_kinds, decoder.get("decoders", ())))
