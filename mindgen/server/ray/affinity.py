"""Which replica a request goes to: one that may have its adapter, or its prompt's beginning, if that has room."""

import hashlib
import json
from typing import Any

from mindgen.server.errors import bad_request
from mindgen.system.checks import shown

_PREFIX_LETTERS = 256


class Affinity:
    """Belongs to one event loop.

    Args:
        base: the base model's name.
        num_replicas: each of which has a place, from 0 on.
        room: requests that a replica computes at once; more of them go elsewhere.
    """

    def __init__(self, base: str, num_replicas: int, room: int) -> None:
        self._base, self._room = base, room
        self._num_open = [0] * num_replicas

    @property
    def num_replicas(self) -> int:
        return len(self._num_open)

    def enter(self, body: bytes, asked: str | None = None) -> int:
        """The place of a replica for a request, until it leaves.

        Args:
            asked: the place that the client wants; None is the best.

        Raises:
            ApiError: there is no such place.
        """
        place = self._best(_key(body, self._base)) if asked is None else self._wanted(asked)
        self._num_open[place] += 1
        return place

    def leave(self, place: int) -> None:
        self._num_open[place] -= 1

    def _best(self, key: str) -> int:
        """The first in the order of the key that has room, and where there is neither the one with the least to do."""
        places = range(len(self._num_open))
        if key:
            ordered = sorted(places, key=lambda place: _weight(key, place), reverse=True)
            with_room = next((place for place in ordered if self._num_open[place] < self._room), None)
            if with_room is not None:
                return with_room
        return min(places, key=self._num_open.__getitem__)

    def _wanted(self, asked: str) -> int:
        if not (asked.isascii() and asked.isdigit() and len(asked) < 9 and int(asked) < len(self._num_open)):
            raise bad_request(f"replica must be below {len(self._num_open)}, not {shown(asked)}", param="replica")
        return int(asked)


def _key(body: bytes, base: str) -> str:
    """The adapter's name, or how the prompt begins; empty for what has neither."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(asked, dict):
        return ""
    for name in (asked.get("adapter_id"), asked.get("model")):
        if isinstance(name, str) and name not in (base, "base"):
            return f"adapter {name}"
    given: Any = asked.get("prompt") or asked.get("messages") or asked.get("text_1")
    if not isinstance(given, str | list):
        return ""
    return f"prompt {str(given[:_PREFIX_LETTERS])[:_PREFIX_LETTERS]}"


def _weight(key: str, place: int) -> bytes:
    """The highest wins (rendezvous hashing): all that share requests out agree, and nobody keeps a table."""
    return hashlib.blake2b(f"{place} {key}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
