"""Calls that replicas in other processes have open, and who reads what comes of them."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from mindgen.errors import MindgenError, ReplicaEndedError, WorkerError
from mindgen.loop.engine_loop import IndexedRequest, wake_all
from mindgen.loop.replica import CallNews
from mindgen.loop.subscription import Subscription
from mindgen.parallel.worker_pool import WorkerPool


class ReplicaCalls:
    """Any thread may call; a life is a replica's process, which is another one once it has been started again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._open: dict[int, tuple[int, Subscription]] = {}  # life and reader, by call
        self._ended: dict[int, str] = {}  # lives, and why

    def new_life(self) -> int:
        return next(self._numbers)

    def open(self, life: int, subscription: Subscription) -> int:
        """The number of a call from now on.

        Raises:
            ReplicaEndedError: that life has ended.
        """
        with self._lock:
            if life in self._ended:
                raise ReplicaEndedError(self._ended[life])
            number = next(self._numbers)
            self._open[number] = life, subscription
            return number

    def forget(self, number: int) -> None:
        with self._lock:
            self._open.pop(number, None)

    def has_ended(self, life: int) -> bool:
        return life in self._ended

    def receive(self, news: CallNews) -> None:
        """What a replica says; of a call that was cancelled nobody waits for what is left."""
        number, chunks, error = news
        with self._lock:
            _, subscription = self._open.get(number, (0, None))
        if subscription is None:
            return
        wake_all([subscription.put(chunks) if error is None else subscription.fail(_of_a_replica(error))])
        if error is not None or not subscription.is_unfinished:
            self.forget(number)

    def note_ended(self, life: int, reason: str) -> None:
        """Lets nobody open a call any more."""
        with self._lock:
            self._ended[life] = reason

    def fail(self, life: int) -> None:
        """Fails the calls that a replica had, which has ended."""
        with self._lock:
            reason = self._ended[life]
            numbers = [number for number, (own, _) in self._open.items() if own == life]
            readers = [self._open.pop(number)[1] for number in numbers]
        wake_all([subscription.fail(ReplicaEndedError(reason)) for subscription in readers])


class RemoteReplica:
    """One of them, as a Server.

    Attributes:
        life: of its process, as ReplicaCalls knows it.
        workers: among which its process is.
    """

    def __init__(self, number: int, life: int, workers: WorkerPool, calls: ReplicaCalls) -> None:
        self.number, self.life, self.workers = number, life, workers
        self._calls = calls
        self._own: WeakKeyDictionary[Subscription, int] = WeakKeyDictionary()

    @property
    def has_ended(self) -> bool:
        return self._calls.has_ended(self.life)

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        """Raises ReplicaEndedError."""
        call = self._calls.open(self.life, subscription)
        self._own[subscription] = call
        try:
            self.workers.tell_one(self.number, "open", call, list(requests), is_streamed)
        except WorkerError as error:
            self._calls.forget(call)
            raise ReplicaEndedError(str(error)) from error

    def abort(self, subscription: Subscription) -> None:
        subscription.close()
        call = self._own.pop(subscription, None)
        if call is not None:
            self._calls.forget(call)
            with suppress(WorkerError):  # that it has ended is noticed elsewhere
                self.workers.tell_one(self.number, "cancel", call)

    def call(self, name: str, *arguments: Any, result: Any = None) -> "Future[Any]":
        """What a method of Replica gives, of that type; raises ReplicaEndedError."""
        try:
            return self.workers.call_one(self.number, name, *arguments, result=result)
        except WorkerError as error:
            raise ReplicaEndedError(str(error)) from error


def _of_a_replica(error: MindgenError) -> MindgenError:
    """Its process ends after an error of its own processes, and others serve on."""
    return ReplicaEndedError(str(error)) if isinstance(error, WorkerError) else error
