"""Tokens to text while they come: exact, never taken back, at a constant cost per token."""

import codecs
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol

_LONGEST_CHARACTER = 4  # bytes in UTF-8
_ESCAPED_TO_REPLACEMENT = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}


class TokenBytes(Protocol):
    """What a Tokenizer knows of the bytes of its tokens; the attributes as there."""

    @property
    def special_ids(self) -> AbstractSet[int]: ...
    @property
    def ids_that_keep_spaces(self) -> AbstractSet[int]: ...
    @property
    def replaces_each_byte(self) -> bool: ...
    @property
    def num_leading_spaces_dropped(self) -> int: ...
    def token_bytes(self, token_id: int, /) -> bytes: ...


class IncrementalDetokenizer:
    """The text of a growing list of tokens.

    A character split over several tokens is held until it is whole. The chunks joined are what the tokens add to the
    prompt's text, so a sentencepiece space at their beginning is kept; without a prompt they are the decoded text.
    """

    def __init__(
        self, tokenizer: TokenBytes, prompt_token_ids: Sequence[int] = (), skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        # "surrogateescape" counts the bytes of a broken character, "replace" counts the character once.
        errors = "surrogateescape" if tokenizer.replaces_each_byte else "replace"
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        self._spaces_to_drop = tokenizer.num_leading_spaces_dropped
        self.append(self._tail(prompt_token_ids))

    def append(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete."""
        return self._text(self._utf8.decode(b"".join(map(self._bytes, token_ids))))

    def flush(self) -> str:
        """What is still held: replacement characters for a character that was never completed."""
        return self._text(self._utf8.decode(b"", final=True))

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._skipped:
            return b""
        data = self._tokenizer.token_bytes(token_id)
        if self._spaces_to_drop and data:
            return self._drop_spaces(token_id, data)
        return data

    def _drop_spaces(self, token_id: int, data: bytes) -> bytes:
        """The bytes of a token at the beginning of a whole text."""
        if token_id not in self._tokenizer.ids_that_keep_spaces:
            num_spaces = len(data) - len(data.lstrip(b" "))
            num_dropped = min(num_spaces, self._spaces_to_drop)
            self._spaces_to_drop -= num_dropped
            data = data[num_dropped:]
        if data:
            self._spaces_to_drop = 0
        return data

    def _text(self, decoded: str) -> str:
        if self._tokenizer.replaces_each_byte and not decoded.isascii():
            return decoded.translate(_ESCAPED_TO_REPLACEMENT)
        return decoded

    def _tail(self, token_ids: Sequence[int]) -> Sequence[int]:
        """The last tokens of the prompt: as many as tell where its last character begins, and whether it has text."""
        num_bytes = 0
        for place in range(len(token_ids) - 1, -1, -1):
            if token_ids[place] not in self._skipped:
                num_bytes += len(self._tokenizer.token_bytes(token_ids[place]).lstrip(b" "))
            if num_bytes >= _LONGEST_CHARACTER:
                return token_ids[place:]
        return token_ids
