"""The replicas of a model in other processes, of this machine and of others: one that ends is started again."""

import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from mindgen.adapters.registry import AdapterRegistry, AdapterVersion
from mindgen.errors import MindgenError, ReplicaEndedError, WorkerError, warn
from mindgen.kernels import backend
from mindgen.loop.local_replicas import is_launched, open_replicas, start_replicas
from mindgen.loop.model_files import ModelFiles, ModelSetup
from mindgen.loop.replica import CallNews
from mindgen.loop.replica_calls import RemoteReplica, ReplicaCalls
from mindgen.loop.router import Router
from mindgen.loop.stream import Server
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.worker_pool import WorkerPool, wait_for

_PAUSE_SECONDS = 1.0  # before a replica is started again; twice as long after each time that it has not come up
_MOST_FAILURES = 5
_LOOK_SECONDS = 0.2
_END_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """
    Attributes:
        wanted: replicas, this process's own included.
        lost: why those have ended that do not serve now, by their numbers.
        num_ends: how often one has ended.
    """

    wanted: int
    lost: dict[int, str]
    num_ends: int


class Replicas:
    """All but this process's own.

    Args:
        local: the numbers of those on this machine, this process's own first.
        nodes: the machines that have more; None if there are no others.

    Raises:
        WorkerError: one has ended.
    """

    def __init__(self, local: range, nodes: OtherNodes | None, files: ModelFiles, setup: ModelSetup) -> None:
        elsewhere = {} if nodes is None else nodes.lines
        self._files, self._setup, self._num_local = files, setup, len(local)
        self._startable = () if is_launched() else local[1:]
        self._calls = ReplicaCalls()
        self._state = threading.Lock()  # of who serves, and who does not
        self._changing = threading.Lock()  # of adapters, while a replica joins
        self._lost: dict[int, str] = {}
        self._num_ends = 0
        self._closing = threading.Event()
        self._starting: list[threading.Thread] = []
        self._supervision: tuple[Router, AdapterRegistry] | None = None
        workers = open_replicas(local, files, setup.config.num_threads, elsewhere)
        numbers = [*local[1:], *elsewhere]
        self._num_wanted = 1 + len(numbers)
        self._pools = [workers]
        self._live = {each.number: each for each in self._watch(workers, numbers)}
        backend.available(setup.config.executor)  # compiled by one, before the others would have to wait for it
        self._ready = [each.call("set_up", setup) for each in self._live.values()]

    def wait_until_ready(self) -> None:
        try:
            wait_for(self._ready)
        except BaseException:
            self.close()
            raise

    def supervise(self, own: Server, adapters: AdapterRegistry) -> Router:
        """What shares requests out over those that serve; one of this machine that ends is started again from now on.

        Args:
            own, adapters: of this process, which stays, and which all have.
        """
        router = Router([own, *self._live.values()])
        self._supervision = router, adapters
        for server in list(self._live.values()):
            if server.has_ended:  # before anybody supervised it
                self.lose(server.number, server.life, f"replica {server.number} has ended")
        return router

    def state(self) -> ReplicaState:
        with self._state:
            return ReplicaState(self._num_wanted, dict(self._lost), self._num_ends)

    def call(self, name: str, *arguments: Any, result: Any = None) -> dict[int, Any]:
        """What a method of Replica gives in each that serves, of that type, by their numbers."""
        with self._changing:
            with self._state:
                servers = list(self._live.values())
            asked, found = [], {}
            for server in servers:
                with _unless_ended(server):
                    asked.append((server, server.call(name, *arguments, result=result)))
            for server, answer in asked:
                with _unless_ended(server):
                    found[server.number] = answer.result()
            return found

    def close(self) -> None:
        self._closing.set()
        for thread in self._starting:
            thread.join(_END_SECONDS)
        for pool in self._pools:
            pool.close()

    def _watch(self, workers: WorkerPool, numbers: Sequence[int]) -> list[RemoteReplica]:
        """Has answers heard, and ends noticed; what does so keeps neither replicas nor workers from being collected."""
        servers = [RemoteReplica(number, self._calls.new_life(), workers, self._calls) for number in numbers]
        lives = {server.number: server.life for server in servers}
        on_end = partial(_note_end, weakref.ref(self), self._calls, lives)
        workers.watch(on_end, self._setup.config.worker_timeout, self._calls.receive, CallNews)
        return servers

    def lose(self, number: int, life: int, why: str) -> None:
        """A replica has ended: the others serve on."""
        if self._supervision is None or self._closing.is_set():
            return
        with self._state:
            server = self._live.get(number)
            if server is None or server.life != life:
                return
            del self._live[number]
            self._lost[number] = why
            self._num_ends += 1
        self._supervision[0].leave(server)
        if number in self._startable:
            warn(f"what a replica was at has failed, and it is started again: {why}")
            thread = threading.Thread(
                target=self._replace, args=(server,), name=f"start of replica {number}", daemon=True
            )
            self._starting = [*(each for each in self._starting if each.is_alive()), thread]
            thread.start()
        else:
            warn(f"what a replica was at has failed, and it does not come back: {why}")

    def _replace(self, lost: RemoteReplica) -> None:
        """Starts a replica again, as often as that may take."""
        lost.workers.end_one(lost.number)  # it may have been stuck
        if lost.workers is not self._pools[0]:  # which has others
            lost.workers.close()
            self._pools.remove(lost.workers)
        for failures in range(_MOST_FAILURES):
            if self._closing.wait(_PAUSE_SECONDS * 2**failures):
                return
            try:
                self._start(lost.number)
                return
            except (MindgenError, OSError) as error:
                if not self._closing.is_set():
                    warn(f"replica {lost.number} has not come up ({failures + 1} of {_MOST_FAILURES} times): {error}")
        with self._state:
            self._lost[lost.number] += f"; it has not come up {_MOST_FAILURES} times, and is not started any more"

    def _start(self, number: int) -> None:
        assert self._supervision is not None
        router, adapters = self._supervision
        before = _named(adapters)
        files = self._files._replace(adapters={name: str(each.folder) for name, each in before.items()})
        pool = start_replicas([number], self._num_local, files, self._setup.config.num_threads)
        try:
            (server,) = self._watch(pool, [number])
            self._wait_until_set_up(server)
            with self._changing:
                _bring_up_to_date(server, before, _named(adapters))
                with self._state:
                    self._pools.append(pool)
                    self._live[number] = server
                    del self._lost[number]
                router.join(server)
        except BaseException:
            pool.close()
            raise
        if server.has_ended:  # before it was one of those that serve, perhaps
            router.leave(server)
            self.lose(number, server.life, f"replica {number} has ended at once")
        else:
            warn(f"replica {number} serves again (start {self._num_ends})")

    def _wait_until_set_up(self, server: RemoteReplica) -> None:
        ready = server.call("set_up", self._setup)
        while True:
            try:
                ready.result(_LOOK_SECONDS)
                return
            except TimeoutError:
                if self._closing.is_set():
                    raise WorkerError("the model was closed") from None


def _note_end(
    replicas: "weakref.ref[Replicas]", calls: ReplicaCalls, lives: Mapping[int, int], number: int, why: str
) -> None:
    calls.note_ended(lives[number], why)
    owner = replicas()
    if owner is not None:
        owner.lose(number, lives[number], why)
    calls.fail(lives[number])


@contextmanager
def _unless_ended(server: RemoteReplica) -> Iterator[None]:
    """For a question that a replica need not answer any more."""
    try:
        yield
    except ReplicaEndedError:
        pass
    except WorkerError:
        if not server.has_ended:
            raise


def _named(adapters: AdapterRegistry) -> dict[str, AdapterVersion]:
    """Those that lie where they did."""
    return {each.adapter_id: each for each in adapters.versions() if each.folder.is_dir()}


def _bring_up_to_date(
    server: RemoteReplica, before: Mapping[str, AdapterVersion], now: Mapping[str, AdapterVersion]
) -> None:
    """Tells a replica which adapters have come and gone while it was started."""
    for name in before.keys() - now.keys():
        server.call("remove_adapter", name).result()
    for name, each in now.items():
        if name not in before or before[name].version != each.version:
            server.call("add_adapter", name, each.folder).result()
