"""What processes that work together tell each other."""

from typing import Any

import msgspec

from mindgen.errors import MindgenError
from mindgen.parallel.encoding import decode, encode


class Arrival(msgspec.Struct, frozen=True):
    """The first message of a worker."""

    worker: int


class Call(msgspec.Struct, frozen=True):
    """Something that a worker is to do; without a number nobody waits for an answer."""

    number: int | None
    name: str
    arguments: msgspec.Raw

    @classmethod
    def of(cls, number: int | None, name: str, arguments: tuple[Any, ...]) -> "Call":
        return cls(number, name, msgspec.Raw(encode(arguments)))

    def read(self, *kinds: Any) -> tuple[Any, ...]:
        """The arguments, of these types."""
        return decode(self.arguments, tuple[kinds])  # type: ignore[no-any-return,valid-type]


class Answer(msgspec.Struct, frozen=True):
    """What came of a call; without a number a worker's own message."""

    number: int | None
    result: msgspec.Raw
    error: MindgenError | None

    @classmethod
    def of(cls, number: int | None, result: Any, error: MindgenError | None = None) -> "Answer":
        return cls(number, msgspec.Raw(encode(result)), error)


class Parcel(msgspec.Struct, frozen=True, tag=True):
    """A message from or to a worker on another node."""

    worker: int
    message: bytes


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Why a node cannot go on."""

    reason: str


class Farewell(msgspec.Struct, frozen=True, tag=True):
    """Node 0 is done; the reason is empty if all went well."""

    exit_code: int
    reason: str


NodeMessage = Parcel | Failure | Farewell
