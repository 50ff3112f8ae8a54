"""Adapters in host memory: those that were read and wait for a slot, or may be wanted again."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from mindgen.adapters.registry import AdapterVersion
from mindgen.adapters.slot_layout import SlotLayout


class ReadAdapter(NamedTuple):
    """An adapter in the form of a slot.

    Attributes:
        layout: of the slots that it is packed for.
    """

    digest: str
    rank: int
    packed: Any
    num_bytes: int
    layout: SlotLayout


class HostMemory:
    """Reads adapters in a thread of its own, the most urgent first, and keeps what the budget allows.

    Those that requests wait for are kept before all others, and others by their last use. Reading ahead stops at the
    budget; only the most urgent adapter is read whatever its size.

    Args:
        read: called in the thread; what it raises is for whoever asks for the adapter.
    """

    def __init__(self, read: Callable[[AdapterVersion], ReadAdapter], max_bytes: int) -> None:
        self._read = read
        self._max_bytes = max_bytes
        self._reader = ThreadPoolExecutor(1, "adapters")
        self._changed = threading.Condition()  # guards all that follows
        self._is_reading = False
        self._adapters: OrderedDict[AdapterVersion, ReadAdapter | Exception] = OrderedDict()
        self._num_bytes = 0
        self._wanted: dict[AdapterVersion, None] = {}  # the most urgent first
        self._missed: set[AdapterVersion] = set()  # since the last wait

    @property
    def num_bytes(self) -> int:
        with self._changed:
            return self._num_bytes

    @property
    def is_reading(self) -> bool:
        with self._changed:
            return self._is_reading

    def want(self, versions: Iterable[AdapterVersion]) -> None:
        """Replaces the list of those that requests wait for, the most urgent first."""
        with self._changed:
            self._wanted = dict.fromkeys(versions)
            self._trim()
            self._start()

    def get(self, version: AdapterVersion) -> ReadAdapter | None:
        """The adapter; None if it has yet to be read, which it will be.

        Raises:
            MindgenError: it cannot be read; whoever asks again has it read again.
        """
        with self._changed:
            adapter = self._adapters.get(version)
            if adapter is None:
                self._wanted.setdefault(version)
                self._missed.add(version)
                self._start()
                return None
            self._missed.discard(version)
            if isinstance(adapter, Exception):
                self._drop(version)
                self._wanted.pop(version, None)
                raise adapter
            self._adapters.move_to_end(version)
            return adapter

    def release(self, version: AdapterVersion) -> None:
        """Nobody waits for it any longer."""
        with self._changed:
            self._wanted.pop(version, None)
            self._trim()
            self._start()

    def forget(self, version: AdapterVersion) -> None:
        with self._changed:
            self._drop(version)
            self._wanted.pop(version, None)

    def forget_all(self) -> None:
        with self._changed:
            for version in list(self._adapters):
                self._drop(version)

    def wait(self, seconds: float) -> None:
        """Until something has been read that was asked for in vain, but no longer than that."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._is_reading or not self._missed.isdisjoint(self._adapters), timeout=seconds
            )
            self._missed.clear()

    def _start(self) -> None:
        if not self._is_reading and self._next() is not None:
            self._is_reading = True
            self._reader.submit(self._read_wanted)

    def _read_wanted(self) -> None:
        adapter: ReadAdapter | Exception
        while True:
            with self._changed:
                version = self._next()
                if version is None:
                    self._is_reading = False
                    self._changed.notify_all()
                    return
            try:
                adapter = self._read(version)
            except Exception as error:
                adapter = error
            with self._changed:
                self._adapters[version] = adapter
                self._num_bytes += _size(adapter)
                self._trim()
                self._changed.notify_all()

    def _next(self) -> AdapterVersion | None:
        """What to read now: the first that is not there, if it is the most urgent of all or there is room."""
        kept = 0
        for place, version in enumerate(self._wanted):
            if version not in self._adapters:
                return version if place == 0 or kept < self._max_bytes else None
            kept += _size(self._adapters[version])
        return None

    def _trim(self) -> None:
        if self._num_bytes <= self._max_bytes:
            return
        for version in [version for version in self._adapters if version not in self._wanted]:
            self._drop(version)
            if self._num_bytes <= self._max_bytes:
                return

    def _drop(self, version: AdapterVersion) -> None:
        adapter = self._adapters.pop(version, None)
        self._num_bytes -= 0 if adapter is None else _size(adapter)


def _size(adapter: ReadAdapter | Exception) -> int:
    return 0 if isinstance(adapter, Exception) else adapter.num_bytes
