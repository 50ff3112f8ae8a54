"""The replicas of a model in other processes, of this machine and of others."""

from collections.abc import Sequence
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from mindgen.errors import WorkerError
from mindgen.kernels import backend
from mindgen.loop.engine_loop import IndexedRequest, wake_all
from mindgen.loop.local_replicas import open_replicas
from mindgen.loop.model_files import ModelFiles, ModelSetup
from mindgen.loop.replica import CallNews
from mindgen.loop.subscription import Subscription
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.worker_pool import wait_for


class Replicas:
    """All but this process's own.

    Args:
        local: the numbers of those on this machine, this process's own first.
        nodes: the machines that have more; None if there are no others.

    Raises:
        WorkerError: one has ended.
    """

    def __init__(self, local: range, nodes: OtherNodes | None, files: ModelFiles, setup: ModelSetup) -> None:
        elsewhere = None if nodes is None else nodes.lines
        self._numbers = count()
        self._open: dict[int, Subscription] = {}  # by the call
        self._workers = open_replicas(local, files, setup.config.num_threads, elsewhere)
        timeout = setup.config.worker_timeout
        self._workers.watch(partial(_end, self._open), timeout, partial(_receive, self._open), CallNews)
        backend.available(setup.config.executor)  # compiled by one, before the others would have to wait for it
        self._ready = self._workers.call("set_up", setup)
        self.servers = [RemoteReplica(self, number) for number in (*local[1:], *(elsewhere or {}))]

    def wait_until_ready(self) -> None:
        try:
            wait_for(self._ready)
        except BaseException:
            self.close()
            raise

    def call(self, name: str, *arguments: Any, result: Any = None) -> list[Any]:
        """What a method of Replica gives in each of them, of that type."""
        return wait_for(self._workers.call(name, *arguments, result=result))

    def open(
        self, replica: int, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool
    ) -> int:
        """The number of a call that the replica serves from now on."""
        if self._workers.error is not None:
            raise self._workers.error
        number = next(self._numbers)
        self._open[number] = subscription
        self._workers.tell_one(replica, "open", number, list(requests), is_streamed)
        return number

    def cancel(self, replica: int, call: int) -> None:
        self._open.pop(call, None)
        if self._workers.error is None:
            self._workers.tell_one(replica, "cancel", call)

    def close(self) -> None:
        self._workers.close()


class RemoteReplica:
    """One of them, as a Server."""

    def __init__(self, replicas: Replicas, number: int) -> None:
        self._replicas, self._number = replicas, number
        self._calls: WeakKeyDictionary[Subscription, int] = WeakKeyDictionary()

    def submit(self, requests: Sequence[IndexedRequest], subscription: Subscription, is_streamed: bool) -> None:
        self._calls[subscription] = self._replicas.open(self._number, requests, subscription, is_streamed)

    def abort(self, subscription: Subscription) -> None:
        subscription.close()
        call = self._calls.pop(subscription, None)
        if call is not None:
            self._replicas.cancel(self._number, call)


def _receive(opened: dict[int, Subscription], news: CallNews) -> None:
    number, chunks, error = news
    subscription = opened.get(number)
    if subscription is None:  # nobody waits for what is left of a call that was cancelled
        return
    wake_all([subscription.put(chunks) if error is None else subscription.fail(error)])
    if error is not None or not subscription.is_unfinished:
        opened.pop(number, None)


def _end(opened: dict[int, Subscription], reason: str) -> None:
    """A replica that ends ends all calls, as it was a part of each."""
    wake_all([subscription.fail(WorkerError(reason)) for subscription in list(opened.values())])
    opened.clear()
