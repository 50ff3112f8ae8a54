"""Answers parts on all machines of a Ray cluster: a replica of the model is an actor, which writes its parts itself."""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mindgen.batch.answer import Answer
from mindgen.batch.config import BatchConfig
from mindgen.batch.job_folder import JobFolder
from mindgen.batch.model import ConfiguredModel
from mindgen.batch.part_schedule import PartSchedule
from mindgen.batch.row_request import RowReader, used_columns
from mindgen.batch.source import Rows, open_source
from mindgen.batch.worker import Worker, WorkerEvents
from mindgen.errors import BatchError, ConfigError, MindgenError, WorkerError
from mindgen.system.cores import threads_per_share

_CALLS_AT_ONCE = 2  # parts, so that the engine has the next one when one ends
_LOOK_SECONDS = 1.0
_SAY_SECONDS = 60.0  # between two lines about waiting for a replica
_MOST_LOSSES = 3  # of a part's workers


@dataclass(frozen=True, slots=True)
class RayEvents:
    """What the driver is told.

    Attributes:
        answered: a part that is there.
        tick: about every second.
        say: what people should read.
    """

    answered: Callable[[int], None]
    tick: Callable[[], None]
    say: Callable[[str], None]


class PartWorker:
    """A replica: what an actor is.

    Args:
        config: its input and the folder of its output are where all machines see them.
        model_digest: of the model as the driver sees it.

    Raises:
        BatchError: the model is another one here.
    """

    def __init__(self, config: BatchConfig, model_digest: str) -> None:
        self._config = replace(config, engine=replace(config.engine, data_parallel_size=1, nnodes=1))
        self._source = open_source(config.input, config.columns.prompt)
        opener = ConfiguredModel(self._config)
        if opener.digest != model_digest:
            raise BatchError(
                f"{config.model.path} is another model on this machine: its digest is {opener.digest}, the driver's "
                f"{model_digest}"
            )
        columns = used_columns(config.columns, self._source, config.adapter_id)
        self._model = opener.open()
        self._reader = RowReader(self._config, columns, self._model)
        self._parts = JobFolder(Path(config.output)).parts

    def is_ready(self) -> bool:
        return True

    def answer(self, part: int) -> int:
        """Answers a part, and writes it."""
        events = WorkerEvents(_ignore, lambda: None, lambda *_: None)
        Worker(self._config, self._model, self._reader, self._parts, events).run(self._blocks(part))
        return part

    def _blocks(self, part: int) -> Iterator[tuple[int, Rows]]:
        for rows in self._source.blocks(self._config.part_rows, lambda number: number != part):
            yield part, rows
            return


def _ignore(answers: list[Answer]) -> None: ...


def answer_with_ray(config: BatchConfig, model_digest: str, parts: Collection[int], events: RayEvents) -> None:
    """Answers the parts with as many replicas as the configuration wants, or as the cluster has room for.

    A replica or machine that is lost is replaced, and its parts are answered by others; what it had written counts.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster.
        BatchError: no replica can be started.
        MindgenError: what a replica has refused, or has lost again and again.
    """
    ray = _connected()
    driver = _Driver(ray, config, model_digest, parts, events)
    try:
        driver.run()
    finally:
        driver.close()


def _connected() -> Any:
    try:
        import ray
    except ImportError:
        raise ConfigError("runner ray needs Ray: pip install 'mindgen[ray]'") from None
    if not ray.is_initialized():
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    return ray


class _Driver:
    """Gives parts to replicas; its memory does not grow with the rows."""

    def __init__(
        self, ray: Any, config: BatchConfig, model_digest: str, parts: Collection[int], events: RayEvents
    ) -> None:
        self._ray, self._events = ray, events
        self._schedule = PartSchedule(parts, _CALLS_AT_ONCE)
        self._losses: dict[int, int] = {}
        self._config, self._model_digest = _with_threads(config, len(ray.nodes())), model_digest
        self._num_wanted = config.engine.data_parallel_size
        self._starting: dict[Any, Any] = {}  # actor by the call that ends when it is ready
        self._calls: dict[Any, tuple[Any, int]] = {}  # actor and part, by call
        self._said = time.monotonic()
        self._actor = ray.remote(**self._options())(PartWorker)

    def _options(self) -> dict[str, Any]:
        """What a replica needs of its machine.

        Raises:
            ConfigError: no machine can have it.
        """
        needs = {"CPU": 1}
        if self._config.engine.device_target == "Ascend":
            needs["NPU"] = self._config.engine.ranks_per_replica
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(machine.get(name, 0) >= count for name, count in needs.items()) for machine in machines):
            raise ConfigError(f"no machine of the Ray cluster has {needs}, which a replica needs: they have {machines}")
        others = {name: count for name, count in needs.items() if name != "CPU"}
        return {
            "num_cpus": needs["CPU"], "resources": others, "scheduling_strategy": "SPREAD",
            "max_concurrency": _CALLS_AT_ONCE + 1,
        }  # fmt: skip

    def run(self) -> None:
        while not self._schedule.is_finished:
            self._start_missing()
            waiting = [*self._starting, *self._calls]
            ended, _ = self._ray.wait(waiting, num_returns=1, timeout=_LOOK_SECONDS)
            for call in ended:
                self._note_end(call)
            self._events.tick()
            self._say_what_is_waited_for()

    def close(self) -> None:
        for actor in [*self._starting.values(), *{actor for actor, _ in self._calls.values()}]:
            self._ray.kill(actor)

    def _start_missing(self) -> None:
        working = {actor for actor, _ in self._calls.values()}
        missing = self._num_wanted - len(working) - len(self._starting)
        for _ in range(min(missing, self._schedule.num_pending - len(self._starting))):
            actor = self._actor.remote(self._config, self._model_digest)
            self._starting[actor.is_ready.remote()] = actor

    def _note_end(self, call: Any) -> None:
        if call in self._starting:
            actor, part = self._starting.pop(call), None
        elif call in self._calls:
            actor, part = self._calls.pop(call)
        else:
            return  # of a replica that is lost
        try:
            self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, WorkerError):
                raise error.cause if isinstance(error.cause, (MindgenError, OSError)) else error from None
            self._replace(actor, error.cause)
            return
        except self._ray.exceptions.RayError as error:
            self._replace(actor, error)
            return
        if part is not None:
            self._schedule.note_answered(actor, part)
            self._events.answered(part)
        while (following := self._schedule.take(actor)) is not None:
            self._calls[actor.answer.remote(following)] = actor, following

    def _replace(self, actor: Any, error: Exception) -> None:
        """Another replica takes the place of one that is lost."""
        self._ray.kill(actor)
        self._calls = {call: held for call, held in self._calls.items() if held[0] is not actor}
        lost = self._schedule.note_lost(actor)
        reason = str(error).strip().splitlines()[0]
        self._events.say(f"a replica is lost, and another takes up its {len(lost)} part(s): {reason}")
        for part in lost:
            self._losses[part] = self._losses.get(part, 0) + 1
            if self._losses[part] >= _MOST_LOSSES:
                raise WorkerError(f"part {part} has lost {self._losses[part]} replicas one after the other: {reason}")

    def _say_what_is_waited_for(self) -> None:
        if self._calls or not self._starting:
            self._said = time.monotonic()
        elif time.monotonic() - self._said > _SAY_SECONDS:
            self._said = time.monotonic()
            self._events.say(
                f"{len(self._starting)} replicas are being started, or wait for room: {self._ray.available_resources()}"
            )


def _with_threads(config: BatchConfig, num_machines: int) -> BatchConfig:
    """Replicas of one machine share its cores."""
    per_machine = -(-config.engine.data_parallel_size // num_machines)
    threads = config.engine.num_threads or threads_per_share(None, per_machine)
    return replace(config, engine=replace(config.engine, num_threads=threads))
