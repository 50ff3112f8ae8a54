"""The checks of what requests bring, each refusing with one line that names the parameter."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from mindgen.errors import RequestError

_MOST_INTEGER = 2**63 - 1
_MOST_NUMBER = float(np.finfo(np.float32).max)  # the kernels' numbers
_MOST_TOKEN = 2**31 - 1  # and their tokens
_LONGEST_SHOWN = 80  # characters of a value in an error


def to_integer(
    name: str, value: Any, least: int = -_MOST_INTEGER, most: int = _MOST_INTEGER, expected: str | None = None
) -> int:
    """An integer of any kind, numpy's included, but no truth and no number with a point.

    Raises:
        RequestError: it is none, or out of its range.
    """
    integer = _integer(value)
    if integer is None:
        _refuse(name, value, "an integer")
    if not least <= integer <= most:
        _refuse(name, value, expected or _range(least, most, integer > _MOST_INTEGER or most < _MOST_INTEGER))
    return integer


def to_number(
    name: str,
    value: Any,
    least: float = -_MOST_NUMBER,
    most: float = _MOST_NUMBER,
    *,
    above: bool = False,
    expected: str | None = None,
) -> float:
    """above: `least` itself is too little, also as the kernels see the number, in single precision."""
    if isinstance(value, (bool, np.bool_, str)) or not hasattr(value, "__float__"):
        _refuse(name, value, "a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        _refuse(name, value, "a number")
    except OverflowError:
        number = math.inf
    if not math.isfinite(number) or not least <= number <= most or (above and np.float32(number) <= least):
        _refuse(name, value, expected or _range(least, most, number > _MOST_NUMBER or most < _MOST_NUMBER, above))
    return number


def to_truth(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        _refuse(name, value, "True or False")
    return bool(value)


def to_token_ids(name: str, values: Any) -> list[int]:
    """Token ids as Python's integers, from a list or array of integers of any kind.

    Raises:
        RequestError: it holds something else, or what no vocabulary has.
    """
    if hasattr(values, "tolist") and not isinstance(values, memoryview):
        values = values.tolist()
    if isinstance(values, (str, bytes, bytearray, memoryview, Mapping)) or not isinstance(values, Iterable):
        _refuse(name, values, "a list of token ids")
    values = list(values)
    if set(map(type, values)) - {int}:
        for place, value in enumerate(values):
            integer = _integer(value)
            if integer is None:
                _refuse(name, value, "token ids, which are integers")
            values[place] = integer
    if values:
        require_tokens(name, (min(values), max(values)), _MOST_TOKEN + 1, "the vocabulary")
    return values


def require_tokens(
    name: str, token_ids: Iterable[int], vocab_size: int, vocabulary: str = "the vocabulary of {}"
) -> None:
    """That token ids are within a vocabulary."""
    for token_id in token_ids:
        if not 0 <= token_id < vocab_size:
            outside = vocabulary.format(vocab_size)
            raise RequestError(f"{name} has token id {shown(token_id)}, which is outside {outside}")


def require_text(name: str, text: Any) -> None:
    """That it is a text, not empty, that can be written in UTF-8."""
    if not isinstance(text, str) or not text:
        _refuse(name, text, "a text that is not empty" if isinstance(text, str) else "a text")
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start : error.start + 1]
        raise RequestError(f"{name} holds half a surrogate pair, {half!r}, which is no text") from None


def require_texts(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if not isinstance(value, str) or not value:
            _refuse(name, value, "texts that are not empty")
        require_text(name, value)


def shown(value: Any) -> str:
    """A value in an error: on one line, and not all of a long one."""
    try:
        text = " ".join(repr(value).split())
    except Exception:  # a number of too many digits, an object that cannot tell
        text = f"a {type(value).__name__}"
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _integer(value: Any) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _range(least: float, most: float, has_most: bool, above: bool = False) -> str:
    bounds = [f"{'above' if above else 'at least'} {least}"] if least > -_MOST_INTEGER else []
    if has_most:
        bounds.append(f"at most {most}")
    return " and ".join(bounds) or "a finite number"


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    raise RequestError(f"{name} must be {expected}, not {shown(value)}")
