"""Settings as Hydra's command lines have them: key=value, +key=value, ++key=value and ~key.

The grammar is that of https://hydra.cc/docs/advanced/override_grammar/basic without what computes values: sweeps,
functions and interpolations are refused. Texts beyond ASCII need no quotes.
"""

import re
from dataclasses import dataclass
from typing import Any, Literal

from mindgen.errors import UsageError

_OVERRIDE = re.compile(r"(\+\+|\+|~|)([^=]*)(=?)(.*)", re.DOTALL)
_KEY = re.compile(r"[\w$-]+(\.[\w$-]+)*")
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*(_[0-9]+)*)")
_FLOAT = re.compile(r"[+-]?((\d+\.\d*|\.\d+)(e[+-]?\d+)?|\d+e[+-]?\d+|inf|nan)", re.IGNORECASE)
_WORDS = {"true": True, "false": False, "null": None}
_ESCAPED = "\\()[]{}:=, \t"
_QUOTES = "'\""
_MOST_NESTED = 32
Operation = Literal["set", "add", "force", "remove"]
_OPERATIONS: dict[str, Operation] = {"": "set", "+": "add", "++": "force", "~": "remove"}


@dataclass(frozen=True, slots=True)
class Override:
    """One of them.

    Attributes:
        operation: key=value sets a key that is known, +key=value adds one, ++key=value does either, and ~key removes
            it; ~key=value does where that is its value.
        key: with dots between sections.
        has_value: false of ~key alone.
    """

    operation: Operation
    key: str
    value: Any = None
    has_value: bool = True


def parse_override(text: str) -> Override:
    """
    Raises:
        UsageError: that is none, or has a value that is computed.
    """
    match = _OVERRIDE.fullmatch(text)
    assert match is not None
    operation, key, equals, value = _OPERATIONS[match[1]], match[2], match[3], match[4]
    if not text.strip():
        raise UsageError(
            "a blank argument: in a shell, nothing may stand behind the \\ at a line's end, neither a space nor a # "
            "comment"
        )
    if not equals and operation != "remove":
        raise UsageError(f"{text!r} is no setting: expected key=value")
    if "@" in key or "/" in key:
        raise UsageError(f"{text!r}: a key is names with dots between, not {key!r}: there are no config groups")
    if not _KEY.fullmatch(key):
        raise UsageError(f"{text!r}: a key is names with dots between, like data.path, not {key!r}")
    if not equals:
        return Override(operation, key, has_value=False)
    return Override(operation, key, _Reader(key, value).value())


class _Reader:
    """Reads the value of a key."""

    def __init__(self, key: str, text: str) -> None:
        self._key = key
        self._text = text
        self._place = 0

    def value(self) -> Any:
        found = self._element("", 0)
        if self._next() == ",":
            raise self._error(f"several values make a sweep: write [{self._text}] for a list, or quote the text")
        return found

    def _element(self, ends: str, depth: int) -> Any:
        """A list, a dict, or what stands before one of the characters `ends`."""
        self._skip_space()
        if depth > _MOST_NESTED:
            raise self._error(f"nested more than {_MOST_NESTED} deep")
        opening = self._next()
        if opening not in ("[", "{"):
            return self._primitive(ends)
        self._place += 1
        found = self._list(depth + 1) if opening == "[" else self._dict(depth + 1)
        self._skip_space()
        if self._next() not in ("", ",", *ends):
            raise self._error(f"{self._text[self._place :]!r} follows what is whole")
        return found

    def _list(self, depth: int) -> list[Any]:
        found: list[Any] = []
        self._skip_space()
        while not self._take("]"):
            if found:
                self._expect(",", "]")
            found.append(self._element("]", depth))
            self._skip_space()
        return found

    def _dict(self, depth: int) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        self._skip_space()
        while not self._take("}"):
            if found:
                self._expect(",", "}")
            self._skip_space()
            key = self._primitive(":}")
            self._expect(":", "}")
            found[key] = self._element("}", depth)
            self._skip_space()
        return found

    def _primitive(self, ends: str) -> Any:
        """A quoted text, or an unquoted one, which may be a number, a truth or null."""
        self._skip_space()
        if self._next() and self._next() in _QUOTES:
            text = self._quoted()
            self._skip_space()
            if self._next() not in ("", ",", *ends):
                raise self._error(f"{self._text[self._place :]!r} follows a quoted text")
            return text
        return self._unquoted(ends)

    def _quoted(self) -> str:
        r"""A backslash takes the meaning from a quote, and from backslashes before one; else it is itself."""
        quote, start = self._next(), self._place + 1
        match = re.compile(rf"((?:[^\\{quote}]|\\.)*){quote}", re.DOTALL).match(self._text, start)
        if match is None:
            raise self._error(f"the text that begins with {quote} has no end")
        self._place = match.end()
        self._refuse_interpolation(match[1])
        return re.sub(r"(\\+)(['\"]|$)", lambda found: _unescape(found[1], found[2], quote), match[1])

    def _unquoted(self, ends: str) -> Any:
        characters: list[str] = []
        num_kept = 0  # as far as the last one with a backslash, which no stripping takes away
        while (character := self._next()) and character != "," and character not in ends:
            escaped = self._text[self._place + 1 : self._place + 2]
            if character == "\\" and escaped and escaped in _ESCAPED:
                characters.append(escaped)
                num_kept = len(characters)
                self._place += 2
                continue
            if self._text.startswith("${", self._place):
                self._refuse_interpolation(self._text[self._place :])
            if character in "()[]{}" + _QUOTES:
                raise self._error(f"{character} must be quoted, or have a \\ before it")
            characters.append(character)
            self._place += 1
        text = "".join(characters)
        text = text[:num_kept] + text[num_kept:].rstrip(" \t")
        if not text and ends:
            raise self._error("a value is missing")
        return text if num_kept else _plain_value(text)

    def _refuse_interpolation(self, text: str) -> None:
        found = re.search(r"\$\{[^}]*\}?", text)
        if found is not None:
            raise self._error(f"{found[0]} is not resolved: write the value itself, or let the shell do it")

    def _next(self) -> str:
        return self._text[self._place : self._place + 1]

    def _take(self, character: str) -> bool:
        taken = self._next() == character
        self._place += taken
        return taken

    def _expect(self, character: str, closing: str) -> None:
        if not self._take(character):
            raise self._error(f"expected {character} or {closing} at {self._text[self._place :]!r}")

    def _skip_space(self) -> None:
        while self._next() and self._next() in " \t":
            self._place += 1

    def _error(self, message: str) -> UsageError:
        return UsageError(f"{self._key}={self._text}: {message}")


def _unescape(backslashes: str, quote: str, opening: str) -> str:
    """Two backslashes before the end or the quote are one."""
    if quote and quote != opening:
        return backslashes + quote
    return "\\" * (len(backslashes) // 2) + quote


def _plain_value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    return float(text) if _FLOAT.fullmatch(text) else text
