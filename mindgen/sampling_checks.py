"""The checks of sampling parameters, each refusing with one line that names the parameter."""

import math
from collections.abc import Sequence
from typing import Any, NoReturn

from mindgen.errors import RequestError


def require_integer(
    name: str,
    value: Any,
    least: int | None = None,
    most: int | None = None,
    *,
    optional: bool = False,
    expected: str | None = None,
) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        _refuse(name, value, "an integer")
    if (least is not None and value < least) or (most is not None and value > most):
        _refuse(name, value, expected or _range(least, most))


def require_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
    optional: bool = False,
    expected: str | None = None,
) -> None:
    """above: `least` itself is too little."""
    if optional and value is None:
        return
    if isinstance(value, (bool, str)) or not hasattr(value, "__float__"):
        _refuse(name, value, "a number")
    if not math.isfinite(value) or not least <= value <= most or (above and value == least):
        _refuse(name, value, expected or _range(least, most, above))


def require_strings(name: str, values: Sequence[Any]) -> None:
    for value in values:
        if not isinstance(value, str) or not value:
            _refuse(name, value, "texts that are not empty")


def require_tokens(name: str, token_ids: Sequence[Any], vocab_size: int | None = None) -> None:
    """That they are token ids, within a vocabulary if its size is known."""
    for token_id in token_ids:
        if isinstance(token_id, bool) or not hasattr(token_id, "__index__"):
            _refuse(name, token_id, "token ids")
        if token_id < 0 or (vocab_size is not None and token_id >= vocab_size):
            known = "the vocabulary" if vocab_size is None else f"the vocabulary of {vocab_size}"
            raise RequestError(f"{name} has token id {token_id}, which is outside {known}")


def _range(least: float | None, most: float | None, above: bool = False) -> str:
    bounds = []
    if least is not None and least != -math.inf:
        bounds.append(f"{'above' if above else 'at least'} {least}")
    if most is not None and most != math.inf:
        bounds.append(f"at most {most}")
    return " and ".join(bounds) or "a finite number"


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    raise RequestError(f"{name} must be {expected}, not {value!r}")
