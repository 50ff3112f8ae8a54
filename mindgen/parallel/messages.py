"""What processes that work together tell each other."""

from typing import Any

import msgspec

from mindgen.errors import MindgenError
from mindgen.parallel.encoding import decode, encode


class Arrival(msgspec.Struct, frozen=True):
    """The first message of a worker."""

    worker: int
    process_id: int


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


class Greeting(msgspec.Struct, frozen=True, tag=True):
    """A node introduces itself to node 0.

    Attributes:
        adapters: digests by name.
        port: where it listens, at the address that it comes from, for links with nodes of higher numbers.
    """

    protocol: int
    num_nodes: int
    node: int
    sizes: dict[str, int]
    model: str
    model_digest: str
    adapters: dict[str, str]
    port: int


class LinkGreeting(msgspec.Struct, frozen=True, tag=True):
    """The first message of a connection for the ranks' data; the token is the Welcome's."""

    token: str
    node: int


class Refusal(msgspec.Struct, frozen=True, tag=True):
    """Node 0 does not want this node, or has waited in vain for another."""

    reason: str


class Welcome(msgspec.Struct, frozen=True, tag=True):
    """All nodes have come; their addresses, by node."""

    token: str
    addresses: list[tuple[str, int]]
