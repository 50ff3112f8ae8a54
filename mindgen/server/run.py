"""The server's life: it listens, says so, and on SIGTERM answers what is under way before it ends."""

import asyncio
import errno
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from mindgen.errors import ConfigError
from mindgen.server.config import ServerConfig

_KEEP_ALIVE_SECONDS = 65  # longer than load balancers wait
_BACKLOG = 2048


def bind(config: ServerConfig) -> socket.socket:
    """The address, before anything takes its time.

    Raises:
        ConfigError: it is taken, or none of this machine's.
    """
    try:
        family, *_, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.set_inheritable(False)
        return bound
    except OSError as error:
        where = f"port {config.port} of {config.host}"
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"{where} is in use: stop what has it, or choose another --port") from error
        raise ConfigError(f"cannot listen at {where}: {error.strerror or error}") from error


def address_of(bound: socket.socket) -> str:
    """Where a browser of this machine finds it."""
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(app: FastAPI, bound: socket.socket, drain_timeout: float, announce: Callable[[], None]) -> None:
    """Until SIGTERM or SIGINT: then nobody new is let in, and what is under way is answered.

    Args:
        drain_timeout: seconds for that; 0 is any time. A second SIGINT ends it at once.
        announce: is called when it listens.
    """
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, ws="none", lifespan="on", backlog=_BACKLOG,
        http="h11",  # which bounds what it keeps of a request's head
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(drain_timeout)) if drain_timeout else None,
    )  # fmt: skip
    _Server(config, announce).run(sockets=[bound])


class _Server(uvicorn.Server):
    """Ends by returning, whatever signal came."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None]) -> None:
        super().__init__(config)
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._announce()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        loop, numbers = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
