"""Tokens to text while they come: exact, never taken back, at a constant cost per token."""

import codecs
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindgen.tokenizer import Tokenizer

_LONGEST_CHARACTER = 4  # bytes in UTF-8
_ESCAPED_TO_REPLACEMENT = {0xDC00 + byte: "\ufffd" for byte in range(0x80, 0x100)}


class IncrementalDetokenizer:
    """The text of a growing list of tokens.

    A character split over several tokens is held until it is whole. The chunks joined are what the tokens add to the
    prompt's text, so a sentencepiece space at their beginning is kept; without a prompt they are the decoded text.
    """

    def __init__(
        self, tokenizer: "Tokenizer", prompt_token_ids: Sequence[int] = (), skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset()
        # "surrogateescape" counts the bytes of a broken character, "replace" counts the character once.
        errors = "surrogateescape" if tokenizer.replaces_each_byte else "replace"
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)
        self._spaces_to_drop = tokenizer.num_leading_spaces_dropped
        self._feed(self._tail_bytes(prompt_token_ids))

    def append(self, token_ids: Iterable[int]) -> str:
        """The text that these tokens complete."""
        data = b"".join(self._tokenizer.token_bytes(token) for token in token_ids if token not in self._skipped)
        return self._feed(data)

    def flush(self) -> str:
        """What is still held: replacement characters for a character that was never completed."""
        return self._text(self._utf8.decode(b"", final=True))

    def _feed(self, data: bytes) -> str:
        while self._spaces_to_drop and data:
            if not data.startswith(b" "):
                self._spaces_to_drop = 0
                break
            data = data[1:]
            self._spaces_to_drop -= 1
        return self._text(self._utf8.decode(data))

    def _text(self, decoded: str) -> str:
        if self._tokenizer.replaces_each_byte and not decoded.isascii():
            return decoded.translate(_ESCAPED_TO_REPLACEMENT)
        return decoded

    def _tail_bytes(self, token_ids: Sequence[int]) -> bytes:
        """The last bytes of the prompt: where its last character begins, and whether it has any text."""
        tail = b""
        for token in reversed(token_ids):
            if token not in self._skipped:
                tail = self._tokenizer.token_bytes(token) + tail
            if len(tail) >= _LONGEST_CHARACTER:
                break
        return tail
