"""The one module that reads or sets environment variables and process-wide state."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

_OP_PLUGIN = "MS_OP_PLUGIN_PATH"


def set_op_plugin(path: str) -> None:
    """Tells MindSpore, which must not be imported yet, where the CPU op plugin is."""
    os.environ[_OP_PLUGIN] = path


def op_plugin() -> str | None:
    """The CPU op plugin that MindSpore was told of, or None."""
    return os.environ.get(_OP_PLUGIN)


def quiet_mindspore() -> None:
    """Keeps MindSpore's C++ log quiet unless the user has chosen a level; its errors come as exceptions as well."""
    os.environ.setdefault("GLOG_v", "4")


def is_mindspore_imported() -> bool:
    return "mindspore" in sys.modules


def cache_folder() -> Path:
    """Where compiled code is kept: $MINDGEN_CACHE, or mindgen in the user's cache folder."""
    given = os.environ.get("MINDGEN_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mindgen"


class LaunchedRank(NamedTuple):
    """Which of the processes that a launcher has started this one is, and the folder where they meet."""

    folder: Path
    rank: int
    size: int


def launched_rank() -> LaunchedRank | None:
    """What the launcher says in MINDGEN_RENDEZVOUS, MINDGEN_RANK and MINDGEN_WORLD_SIZE; None without one."""
    folder = os.environ.get("MINDGEN_RENDEZVOUS")
    if not folder:
        return None
    return LaunchedRank(Path(folder), int(os.environ["MINDGEN_RANK"]), int(os.environ["MINDGEN_WORLD_SIZE"]))


def worker_environment() -> dict[str, str]:
    """For processes that this one starts itself: they are no launcher's."""
    launched = ("MINDGEN_RENDEZVOUS", "MINDGEN_RANK", "MINDGEN_WORLD_SIZE")
    return {name: value for name, value in os.environ.items() if name not in launched}


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Lets the first Ctrl-C wait, so that nothing is cut off half done; what it yields tells whether one came.

    The second one raises KeyboardInterrupt as ever. Outside the main thread, which alone gets them, nothing changes.
    """
    came = threading.Event()

    def note(number: int, frame: FrameType | None) -> None:
        if came.is_set():
            signal.default_int_handler(number, frame)
        came.set()

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return
    previous = signal.signal(signal.SIGINT, note)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGINT, previous)
