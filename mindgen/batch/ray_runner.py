"""Answers parts on all machines of a Ray cluster: each replica of the model is an actor, which writes its parts."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindgen.batch.job_folder import JobFolder
from mindgen.batch.part_schedule import PartSchedule
from mindgen.batch.part_worker import Assignment, PartWorker
from mindgen.batch.parts import Parts
from mindgen.batch.ray_cluster import cluster, one_line, replica_needs
from mindgen.batch.totals import Totals
from mindgen.errors import BatchError, ConfigError, MindgenError, WorkerError

_PARTS_AT_ONCE = 2  # of a replica, so that the engine has the next one when one ends
_LOOK_SECONDS = 1.0
_MOST_LOSSES = 3  # of replicas, one after the other without an answer between them
_PLACE_SECONDS = 300.0  # for a replica to get a place, which a cluster that grows needs
_SAY_SECONDS = 30.0
_LONGEST_PAUSE = 60.0  # seconds after replicas that could not be started


@dataclass(frozen=True, slots=True)
class RayEvents:
    """What the driver is told.

    Attributes:
        answered: a part that is there, and what is in it.
        tick: about every second.
        say: what people should read.
    """

    answered: Callable[[int, Totals], None]
    tick: Callable[[], None]
    say: Callable[[str], None]


class _ReplicaLost(Exception):
    """The process of a replica is gone, or one of its ranks."""


def answer_with_ray(assignment: Assignment, parts: Collection[int], events: RayEvents) -> None:
    """Answers parts of the job that this process holds, by as many replicas as the configuration wants, or as the
    cluster has room for.

    A replica or machine that is lost is replaced, and its parts are answered by others; what it had written counts.

    Raises:
        ConfigError: Ray is not installed, there is no cluster, or it has no room for a replica.
        BatchError: replicas cannot be started, or a part has ended one after the other.
        MindgenError: what a replica has refused.
    """
    with cluster() as ray:
        driver = _Driver(ray, assignment, parts, events)
        try:
            driver.run()
        finally:
            driver.close()


class _Driver:
    """Gives parts to replicas; its memory does not grow with the rows."""

    def __init__(self, ray: Any, assignment: Assignment, parts: Collection[int], events: RayEvents) -> None:
        config = assignment.config
        self._ray, self._engine, self._events = ray, config.engine, events
        self._schedule = PartSchedule(parts, _PARTS_AT_ONCE)
        self._losses = _Losses(JobFolder(Path(config.output)).parts)
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        self._needs = replica_needs(config.engine, machines)
        others = {name: count for name, count in self._needs.items() if name != "CPU"}
        self._class = ray.remote(
            num_cpus=self._needs["CPU"], resources=others, scheduling_strategy="SPREAD",
            max_concurrency=_PARTS_AT_ONCE,
        )(PartWorker)  # fmt: skip
        sharing = -(-config.engine.data_parallel_size // len(machines))
        self._assignment = ray.put(replace(assignment, sharing=sharing))
        self._replicas: set[Any] = set()
        self._placing: dict[Any, Any] = {}  # replica by the call that ends when it has its place
        self._loading: dict[Any, Any] = {}  # replica by the call that ends when it can answer
        self._ready: set[Any] = set()  # replicas that can answer
        self._calls: dict[Any, tuple[Any, int]] = {}  # replica and part, by call
        self._num_failed_starts = 0  # since the last one that was none
        self._next_start = self._last_place = self._last_said = time.monotonic()

    def run(self) -> None:
        while not self._schedule.is_finished:
            self._start_missing()
            for call in self._ended():
                try:
                    self._note_end(call)
                except _ReplicaLost:
                    continue
            self._events.tick()
            self._refuse_to_wait_for_ever()

    def close(self) -> None:
        for replica in self._replicas:
            self._ray.kill(replica)

    def _start_missing(self) -> None:
        if time.monotonic() < self._next_start:
            return
        num_starting = len(self._placing) + len(self._loading)
        missing = self._engine.data_parallel_size - len(self._replicas)
        for _ in range(min(missing, self._schedule.num_pending - num_starting)):
            replica = self._class.remote(self._assignment)
            self._replicas.add(replica)
            self._placing[replica.machine.remote()] = replica

    def _ended(self) -> list[Any]:
        """Calls that have ended; waits about a second for one."""
        waiting = [*self._placing, *self._loading, *self._calls]
        if not waiting:
            time.sleep(_LOOK_SECONDS)
            return []
        first, waiting = self._ray.wait(waiting, timeout=_LOOK_SECONDS)
        if not waiting or not first:
            return first  # type: ignore[no-any-return]
        others, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
        return first + others  # type: ignore[no-any-return]

    def _note_end(self, call: Any) -> None:
        if call in self._placing:
            replica = self._placing.pop(call)
            self._result(replica, call)
            self._loading[replica.load.remote()] = replica
        elif call in self._loading:
            replica = self._loading.pop(call)
            self._result(replica, call)
            self._num_failed_starts = 0
            self._ready.add(replica)
            self._give_parts(replica)
        elif call in self._calls:
            replica, part = self._calls[call]
            totals = self._result(replica, call)
            del self._calls[call]
            self._schedule.note_answered(replica, part)
            self._events.answered(part, totals)
            self._give_parts(replica)

    def _give_parts(self, replica: Any) -> None:
        while (part := self._schedule.take(replica)) is not None:
            self._calls[replica.answer.remote(part)] = replica, part

    def _result(self, replica: Any, call: Any) -> Any:
        """What the call has returned.

        Raises:
            _ReplicaLost: it is lost; another one will take its place.
            MindgenError: what the replica has refused.
        """
        errors = self._ray.exceptions
        try:
            return self._ray.get(call)
        except errors.RayTaskError as error:
            if not isinstance(error.cause, WorkerError):
                raise error.cause if isinstance(error.cause, (MindgenError, OSError)) else error from None
            self._note_lost(replica, one_line(error.cause))
        except errors.RayError as error:
            self._note_lost(replica, one_line(error))
        raise _ReplicaLost

    def _note_lost(self, replica: Any, reason: str) -> None:
        self._ray.kill(replica)
        self._replicas.remove(replica)
        self._ready.discard(replica)
        self._calls = {call: held for call, held in self._calls.items() if held[0] is not replica}
        parts = self._schedule.note_lost(replica)
        if not parts:
            self._num_failed_starts += 1
            if self._num_failed_starts >= _MOST_LOSSES and not self._ready:
                raise BatchError(f"{self._num_failed_starts} replicas one after the other have not come up: {reason}")
            self._next_start = time.monotonic() + min(2.0**self._num_failed_starts, _LONGEST_PAUSE)
        self._events.say(f"a replica is lost, and another one takes up its {len(parts)} part(s): {reason}")
        for part in parts:
            self._losses.note(part, reason)
        if parts:
            for other in self._ready:
                self._give_parts(other)

    def _refuse_to_wait_for_ever(self) -> None:
        now = time.monotonic()
        if self._loading or self._ready or not self._placing:
            self._last_place = self._last_said = now
            return
        if now - self._last_said > _SAY_SECONDS:
            self._last_said = now
            self._events.say(f"{len(self._placing)} replicas wait for a place in the Ray cluster")
        if now - self._last_place > _PLACE_SECONDS:
            free = {name: self._ray.available_resources().get(name, 0) for name in self._needs}
            raise ConfigError(
                f"no machine of the Ray cluster has had room for a replica for {_PLACE_SECONDS:g} s: it needs "
                f"{self._needs}, and of all machines together {free} is free. End what else runs there"
            )


class _Losses:
    """How often parts have lost their replica, one time after the other without an answer between them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._lost: dict[int, tuple[int, int]] = {}  # how often, and bytes in the journal, by part

    def note(self, part: int, reason: str) -> None:
        """Raises BatchError where it is too often."""
        path = self._parts.journal_path(part)
        size = path.stat().st_size if path.is_file() else 0
        count, before = self._lost.get(part, (0, size))
        count = count + 1 if size == before else 1
        if count >= _MOST_LOSSES:
            raise BatchError(f"part {part} has ended {count} replicas one after the other: {reason}")
        self._lost[part] = count, size
