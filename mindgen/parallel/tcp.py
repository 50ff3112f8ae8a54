"""TCP connections between machines, which end soon when the other side falls silent."""

import errno
import os
import select
import socket

from mindgen.errors import LaunchError

# A machine that is gone, or a cable, is noticed within about 15 seconds, whether something is on its way or not.
_IDLE_SECONDS, _PROBE_SECONDS, _NUM_PROBES = 6, 3, 3
_SILENCE_MILLISECONDS = 15_000


def listen(host: str, port: int, backlog: int = 64) -> socket.socket:
    """Raises OSError."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return socket.create_server(address[:2], family=family, backlog=backlog)


def listen_as_master(host: str, port: int) -> socket.socket:
    """Raises LaunchError that says what to change."""
    try:
        return listen(host, port)
    except socket.gaierror as error:
        raise LaunchError(f"master_addr {host!r} is no address: {error.strerror}") from error
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno == errno.EADDRNOTAVAIL:
            hint = "on node 0 master_addr must be one of this machine's addresses"
        else:
            hint = "choose another master_port, the same on all nodes"
        raise LaunchError(f"cannot listen on {host}:{port}: {reason}: {hint}") from error


def connect(host: str, port: int, seconds: float) -> socket.socket:
    """Raises OSError."""
    connection = socket.create_connection((host, port), timeout=seconds)
    prepare(connection)
    return connection


def prepare(connection: socket.socket) -> None:
    """Without delays for small messages, and with probes while nothing is said."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _IDLE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _NUM_PROBES)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _SILENCE_MILLISECONDS)


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end has ended it, as far as is known."""
    try:
        return bool(select.select([connection], [], [], 0)[0]) and connection.recv(1, socket.MSG_PEEK) == b""
    except OSError:
        return True
