"""Takes weights that other processes of this host send through shared memory, and has a model serve them."""

import os
import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from mindgen.errors import ConfigError
from mindgen.rlhf.session import Session, UpdatedModel

_CREDENTIALS = struct.Struct("3i")  # process, user, group
_LONGEST_PATH = 107  # that a socket of Unix has


class WeightReceiver:
    """Listens until it is closed; each sender has a thread, and one update is open at a time.

    Args:
        model: an LLM.
        path: of the socket, which this user's processes may connect to.
        idle_seconds: after which a sender that says nothing in the midst of an update is given up.

    Raises:
        ConfigError: another process listens there, or nothing can.
    """

    def __init__(self, model: UpdatedModel, path: str | Path, idle_seconds: float = 60.0) -> None:
        self._model, self._path, self._idle_seconds = model, Path(path), idle_seconds
        self._listener = _listen(self._path)
        self._is_closed = False
        self._sessions: dict[threading.Thread, socket.socket] = {}
        self._thread = threading.Thread(target=self._accept, name="weights", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Calls off what is on its way."""
        if self._is_closed:
            return
        self._is_closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        self._thread.join()
        for thread, connection in list(self._sessions.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def __enter__(self) -> "WeightReceiver":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                time.sleep(0.01)  # closed, or out of descriptors for now
                continue
            if not _is_own(connection):
                connection.close()
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="weight sender", daemon=True)
            self._sessions[thread] = connection
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                Session(self._model, connection, self._idle_seconds).serve()
        finally:
            self._sessions.pop(threading.current_thread(), None)


def _is_own(connection: socket.socket) -> bool:
    """Whether a process of this user is at the other end."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return _CREDENTIALS.unpack(found)[1] == os.getuid()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(f"{path} is too long for a socket: {_LONGEST_PATH} bytes is the limit")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _unlink_abandoned(path)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
    except OSError as error:
        listener.close()
        raise ConfigError(f"{path}: nothing can listen there: {error.strerror}") from error
    return listener


def _unlink_abandoned(path: Path) -> None:
    """Of a process that is gone.

    Raises:
        ConfigError: somebody listens there.
    """
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise ConfigError(f"{path}: another process receives weights there")
