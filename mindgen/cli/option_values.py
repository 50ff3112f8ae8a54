"""Values of options from what was typed, by the type of the parameter that they are for."""

import json
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from mindgen.errors import UsageError
from mindgen.system.text_file import read_text_file

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def is_list(kind: Any) -> bool:
    return any(typing.get_origin(each) is Sequence for each in _alternatives(kind))


def is_boolean(kind: Any) -> bool:
    return bool in _alternatives(kind)


def parse_value(name: str, kind: Any, texts: Sequence[str]) -> Any:
    """The value of a parameter.

    Args:
        kind: the parameter's annotation.
        texts: what was typed: of a list its entries, or all of them as JSON in one text; else one text.

    Raises:
        UsageError: no such value can be meant.
    """
    alternatives = _alternatives(kind)
    if texts[0].lower() == "none" and type(None) in alternatives:
        return None
    for alternative in sorted(alternatives, key=_order):
        try:
            return _parse_as(alternative, texts)
        except ValueError:
            continue
    expected = " or ".join(_describe(each) for each in alternatives if each is not type(None))
    raise UsageError(f"{name} cannot be {' '.join(texts)!r}: expected {expected}")


def read_text_or_file(name: str, text: str) -> str:
    """The text itself, or what is in the file that @file names.

    Raises:
        UsageError: the file cannot be read.
    """
    if not text.startswith("@"):
        return text
    try:
        return read_text_file(Path(text[1:]), UsageError)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error


def _alternatives(kind: Any) -> list[Any]:
    return list(typing.get_args(kind)) if typing.get_origin(kind) in (types.UnionType, typing.Union) else [kind]


def _order(kind: Any) -> int:
    """Which alternative to try first: a text fits everything."""
    return {int: 1, bool: 2, float: 3, str: 5, type(None): 6}.get(kind, 4 if typing.get_origin(kind) is None else 0)


def _parse_as(kind: Any, texts: Sequence[str]) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence:
        return _parse_list(arguments[0], texts)
    (text,) = texts
    if origin is Literal and text in arguments:
        return text
    if origin is Mapping:
        return {arguments[0](key): value for key, value in _require_type(json.loads(text), dict).items()}
    if kind is bool and text.lower() in _TRUTHS:
        return _TRUTHS[text.lower()]
    if kind in (int, float, str):
        return kind(text)
    if kind is Any:
        return _require_type(json.loads(text), dict)
    raise ValueError(text)


def _parse_list(kind: Any, texts: Sequence[str]) -> list[Any]:
    if len(texts) == 1 and texts[0].startswith("["):
        try:
            values = _require_type(json.loads(texts[0]), list)
        except ValueError:
            values = None  # a text that only begins like a list
        if values is not None and all(type(value) is kind for value in values):
            return values
    return [kind(text) for text in texts]


def _require_type(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise ValueError(value)
    return value


def _describe(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Sequence:
        return f"a list of {'integers' if arguments[0] is int else 'texts'}"
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    known = {int: "an integer", float: "a number", bool: "True or False", str: "a text", Any: "a JSON object"}
    return 'a JSON object like {"5": 1.5}' if origin is Mapping else known[kind]
