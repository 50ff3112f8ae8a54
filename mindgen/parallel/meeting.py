"""How nodes find each other: all come to node 0, which compares what they are, and lets them connect to each other."""

import secrets
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from mindgen.errors import LaunchError, MessageError
from mindgen.parallel import tcp
from mindgen.parallel.channel import MAX_MESSAGE_BYTES, Channel
from mindgen.parallel.messages import Greeting, LinkGreeting, Refusal, Welcome
from mindgen.parallel.node_placement import NodePlacement

PROTOCOL = 1
_GREETING_BYTES = 4 << 20  # before anything is known of the other side
_GREETING_SECONDS = 2.0
_LINK_SECONDS = 10.0
_ANSWER_SECONDS = 3.0  # that node 0's verdict takes once its time is over
_RETRY_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Identity:
    """What must be the same on all nodes."""

    sizes: dict[str, int]
    model: str
    model_digest: str
    adapters: dict[str, str]

    def difference(self, other: Greeting) -> str | None:
        """What is different there; None if nothing is."""
        if other.sizes != self.sizes:
            return f"its sizes are {_shown(other.sizes)}, node 0's are {_shown(self.sizes)}"
        if other.model_digest != self.model_digest:
            theirs, own = f"{other.model} ({other.model_digest})", f"{self.model} ({self.model_digest})"
            return f"its model is {theirs}, node 0's is {own}: they must have the same files"
        for name, digest in self.adapters.items():
            if other.adapters.get(name) != digest:
                theirs = other.adapters.get(name, "missing")
                return f"its adapter {name} is {theirs}, node 0's is {digest}: they must have the same files"
        return None


@dataclass(slots=True)
class Peers:
    """The other nodes as one of them sees them: by node a connection for messages and one for the ranks' data.

    Of node 0 channels has all others, of the others node 0 alone; sockets are empty unless ranks share a network.
    """

    channels: dict[int, Channel] = field(default_factory=dict)
    addresses: dict[int, str] = field(default_factory=dict)
    sockets: dict[int, socket.socket] = field(default_factory=dict)

    def descriptors(self, num_nodes: int) -> tuple[int, ...]:
        """Of the sockets by node, -1 where there is none."""
        return tuple(self.sockets[node].fileno() if node in self.sockets else -1 for node in range(num_nodes))

    def close_sockets(self) -> None:
        for each in self.sockets.values():
            each.close()
        self.sockets = {}

    def close(self) -> None:
        for channel in self.channels.values():
            channel.close()
        self.close_sockets()


def await_nodes(placement: NodePlacement, identity: Identity) -> Peers:
    """As node 0: waits until all others have come.

    Raises:
        LaunchError: one has not, in time.
    """
    with tcp.listen_as_master(*placement.address) as listener:
        meeting = _Meeting(placement, identity, listener)
        try:
            return meeting.hold()
        except BaseException as error:
            meeting.refuse_all(str(error) or "node 0 was interrupted")
            raise


class _Meeting:
    def __init__(self, placement: NodePlacement, identity: Identity, listener: socket.socket) -> None:
        self._placement, self._identity, self._listener = placement, identity, listener
        self._peers = Peers()
        self._connections: dict[int, socket.socket] = {}
        self._ports: dict[int, int] = {}
        self._refused = ""

    def hold(self) -> Peers:
        placement = self._placement
        seconds = f"{placement.seconds:.0f} seconds"
        _say(f"{placement.name}: waits at {_at(placement.address)} for the others, {seconds} at most")
        deadline = time.monotonic() + placement.seconds
        while missing := self._missing():
            accepted = _accept(self._listener, deadline)
            if accepted is None:
                raise LaunchError(
                    f"node {min(missing)} has not come to {_at(placement.address)} within {seconds}{self._refused}"
                )
            self._greet(*accepted)
        token = secrets.token_hex(16)
        addresses = [("", 0)] + [
            (self._peers.addresses[node], self._ports[node]) for node in range(1, placement.num_nodes)
        ]
        for node, channel in self._peers.channels.items():
            _send(node, channel, Welcome(token, addresses))
            channel.max_bytes = MAX_MESSAGE_BYTES
        if placement.spans:
            self._peers.sockets = _accept_links(self._listener, token, set(self._connections))
        return self._peers

    def _missing(self) -> set[int]:
        """Nodes that have not come, or have gone again."""
        for node in [node for node, connection in self._connections.items() if tcp.is_closed(connection)]:
            del self._connections[node]
            self._peers.channels.pop(node).close()
        return set(range(1, self._placement.num_nodes)) - self._connections.keys()

    def refuse_all(self, reason: str) -> None:
        for channel in self._peers.channels.values():
            _try_send(channel, Refusal(reason))
        self._peers.close()

    def _greet(self, connection: socket.socket, host: str) -> None:
        channel = Channel(connection, _GREETING_BYTES)
        try:
            greeting = channel.receive(Greeting, _GREETING_SECONDS)
        except (EOFError, TimeoutError, MessageError) as error:
            _say(f"{self._placement.name}: somebody at {host} is no node of mindgen and was turned away ({error})")
            channel.close()
            return
        reason = self._reason_against(greeting)
        if reason is not None:
            reason = f"node {greeting.node} at {host} is refused: {reason}"
            self._refused = f"; {reason}"
            _say(f"{self._placement.name}: {reason}")
            _try_send(channel, Refusal(reason))
            channel.close()
            return
        self._connections[greeting.node] = connection
        self._peers.channels[greeting.node] = channel
        self._peers.addresses[greeting.node] = host
        self._ports[greeting.node] = greeting.port

    def _reason_against(self, greeting: Greeting) -> str | None:
        if greeting.protocol != PROTOCOL:
            return f"it speaks version {greeting.protocol}, node 0 speaks {PROTOCOL}: install the same mindgen on both"
        if greeting.num_nodes != self._placement.num_nodes:
            return f"its nnodes is {greeting.num_nodes}, node 0's is {self._placement.num_nodes}"
        if not 0 < greeting.node < self._placement.num_nodes:
            return f"its node_rank must be 1 to {self._placement.num_nodes - 1}"
        taken = self._connections.get(greeting.node)
        if taken is not None and not tcp.is_closed(taken):
            return f"node_rank {greeting.node} is taken by {self._peers.addresses[greeting.node]}"
        return self._identity.difference(greeting)


def join_nodes(placement: NodePlacement, identity: Identity) -> Peers:
    """As another node: comes to node 0, waiting for it if need be.

    Raises:
        LaunchError: node 0 does not come, or refuses this node.
    """
    _say(f"{placement.name}: waits for node 0 at {_at(placement.address)}, {placement.seconds:.0f} seconds at most")
    with ExitStack() as stack:
        connection = _connect_to_master(placement)
        channel = Channel(connection, _GREETING_BYTES)
        stack.callback(channel.close)
        own_host = connection.getsockname()[0]
        listener = stack.enter_context(tcp.listen(own_host, 0))
        port = listener.getsockname()[1]
        greeting = Greeting(
            PROTOCOL, placement.num_nodes, placement.node, identity.sizes, identity.model, identity.model_digest,
            identity.adapters, port,
        )  # fmt: skip
        answer = _ask(placement, channel, greeting)
        channel.max_bytes = MAX_MESSAGE_BYTES
        peers = Peers({0: channel}, {0: placement.address[0]})
        if placement.spans:
            peers.sockets = _link(placement, answer, listener)
        stack.pop_all()
        listener.close()
        return peers


def _connect_to_master(placement: NodePlacement) -> socket.socket:
    deadline = time.monotonic() + placement.seconds
    while True:
        try:
            return tcp.connect(*placement.address, seconds=max(_RETRY_SECONDS, deadline - time.monotonic()))
        except OSError as error:
            if time.monotonic() > deadline - _RETRY_SECONDS:
                raise LaunchError(
                    f"node 0 has not answered at {_at(placement.address)} within {placement.seconds:.0f} seconds "
                    f"({error.strerror or error}): start it there, or correct master_addr and master_port"
                ) from error
            time.sleep(_RETRY_SECONDS)


def _ask(placement: NodePlacement, channel: Channel, greeting: Greeting) -> Welcome:
    try:
        channel.send(greeting)
        answer = channel.receive(Welcome | Refusal, placement.seconds + _ANSWER_SECONDS)
    except (OSError, EOFError, MessageError) as error:  # a TimeoutError is an OSError
        raise LaunchError(
            f"what listens at {_at(placement.address)} is no node 0 of mindgen, or has ended: {error}"
        ) from error
    if isinstance(answer, Refusal):
        raise LaunchError(answer.reason)
    return answer  # type: ignore[no-any-return]


def _link(placement: NodePlacement, welcome: Welcome, listener: socket.socket) -> dict[int, socket.socket]:
    """Connections with all other nodes: those of lower numbers listen."""
    if len(welcome.addresses) != placement.num_nodes:
        raise LaunchError(f"node 0 tells of {len(welcome.addresses)} nodes, and there are {placement.num_nodes}")
    sockets = {}
    for node, address in enumerate([placement.address, *welcome.addresses[1 : placement.node]]):
        try:
            sockets[node] = tcp.connect(*address, seconds=_LINK_SECONDS)
            Channel(sockets[node]).send(LinkGreeting(welcome.token, placement.node))
        except OSError as error:
            raise LaunchError(f"cannot reach node {node} at {_at(address)}: {error.strerror or error}") from error
    return sockets | _accept_links(listener, welcome.token, set(range(placement.node + 1, placement.num_nodes)))


def _accept_links(listener: socket.socket, token: str, nodes: set[int]) -> dict[int, socket.socket]:
    sockets: dict[int, socket.socket] = {}
    deadline = time.monotonic() + _LINK_SECONDS
    while missing := nodes - sockets.keys():
        accepted = _accept(listener, deadline)
        if accepted is None:
            raise LaunchError(f"node {min(missing)} has not connected its ranks within {_LINK_SECONDS:.0f} seconds")
        connection, _ = accepted
        try:
            greeting = Channel(connection, _GREETING_BYTES).receive(LinkGreeting, _GREETING_SECONDS)
        except (EOFError, TimeoutError, MessageError):
            connection.close()
            continue
        if not secrets.compare_digest(greeting.token, token) or greeting.node not in missing:
            connection.close()
            continue
        sockets[greeting.node] = connection
    return sockets


def _accept(listener: socket.socket, deadline: float) -> tuple[socket.socket, str] | None:
    """The next connection and where it comes from; None if none comes in time."""
    listener.settimeout(max(0.01, deadline - time.monotonic()))
    try:
        connection, address = listener.accept()
    except TimeoutError:
        return None
    tcp.prepare(connection)
    return connection, address[0]


def _send(node: int, channel: Channel, message: Any) -> None:
    try:
        channel.send(message)
    except OSError as error:
        raise LaunchError(f"node {node} has ended before all had come: {error.strerror or error}") from error


def _try_send(channel: Channel, message: Any) -> None:
    with suppress(OSError):  # whoever is gone need not be told
        channel.send(message)


def _at(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def _shown(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size}" for name, size in sizes.items())


def _say(text: str) -> None:
    sys.stderr.write(f"mindgen: {text}\n")
