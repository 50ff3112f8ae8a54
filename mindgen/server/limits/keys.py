"""API keys: a file of them, and which one a request brings."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mindgen.errors import ConfigError
from mindgen.server.errors import ApiError
from mindgen.system.text_file import read_text_file

_SHORTEST = 8  # characters that nobody guesses at once
_FORM = "KEY name=NAME requests_per_minute=N concurrency=N, all but KEY as you like"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of something at once; None is any amount."""

    requests_per_minute: float | None = None
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes:
        name: what logs call it; never the key.
        digest: of the key; names may be those of several.
    """

    name: str
    limits: Limits = Limits()
    is_admin: bool = False
    digest: bytes = field(default=b"", compare=False, repr=False)


class KeyRing:
    """The keys that are known, by their digests: how long a look takes says nothing about them.

    Args:
        is_open: whether a request without a key may ask as well, for all but what is an admin's.
    """

    def __init__(self, callers: dict[bytes, Caller], is_open: bool) -> None:
        self._callers = callers
        self._is_open = is_open

    @classmethod
    def read(cls, api_key_file: str | None, admin_key_file: str | None) -> "KeyRing":
        """
        Raises:
            ConfigError: a file cannot be read, holds no key, a line is no key with its limits, or has an earlier key.
        """
        callers: dict[bytes, Caller] = {}
        places: dict[bytes, str] = {}
        for name, is_admin in ((api_key_file, False), (admin_key_file, True)):
            for where, caller in () if name is None else _read_lines(Path(name), is_admin):
                first = places.setdefault(caller.digest, where)
                if first != where:
                    raise ConfigError(f"{where}: the same key as in {first}: expected each once, so remove one of them")
                callers[caller.digest] = caller
        return cls(callers, is_open=api_key_file is None)

    def find(self, authorization: str | None) -> Caller:
        """Whose the key in the header is.

        Args:
            authorization: the header, "Bearer KEY".

        Raises:
            ApiError: there is none, or it is not known.
        """
        kind, _, key = (authorization or "").partition(" ")
        caller = self._callers.get(_digest(key.strip())) if kind.lower() == "bearer" else None
        if caller is not None:
            return caller
        if self._is_open:
            return Caller("anonymous")
        if not authorization:
            message = "You did not provide an API key: send the header Authorization: Bearer KEY"
        else:
            message = "Incorrect API key provided"
        headers = {"WWW-Authenticate": "Bearer"}
        raise ApiError(401, "invalid_request_error", message, code="invalid_api_key", headers=headers)


def _read_lines(path: Path, is_admin: bool) -> Iterable[tuple[str, Caller]]:
    """Where each key is, and whose it is."""
    lines = read_text_file(path, ConfigError, "the keys in").splitlines()
    found = [
        (number, line.split()) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")
    ]
    if not found:
        raise ConfigError(f"{path} holds no key: expected a line for each, {_FORM}")
    for number, (key, *options) in found:
        where = f"{path}, line {number}"
        if len(key) < _SHORTEST:
            raise ConfigError(f"{where}: a key has at least {_SHORTEST} characters")
        yield where, replace(_caller(where, options, f"{path.stem}-{number}", is_admin), digest=_digest(key))


def _caller(where: str, options: list[str], name: str, is_admin: bool) -> Caller:
    values = dict(option.partition("=")[::2] for option in options)
    unknown = [key for key in values if key not in ("name", "requests_per_minute", "concurrency")]
    if unknown or len(values) < len(options) or not all(values.values()):
        raise ConfigError(f"{where}: expected {_FORM}" + (f", not {unknown[0]!r}" if unknown else ""))
    try:
        rate = float(values["requests_per_minute"]) if "requests_per_minute" in values else None
        concurrency = int(values["concurrency"]) if "concurrency" in values else None
    except ValueError as error:
        raise ConfigError(f"{where}: limits are numbers: {error}") from error
    if (rate is not None and not 0 < rate < math.inf) or (concurrency is not None and concurrency < 1):
        raise ConfigError(f"{where}: requests_per_minute must be above 0, and concurrency 1 or more")
    return Caller(values.get("name") or name, Limits(rate, concurrency), is_admin)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
