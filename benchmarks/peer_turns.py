"""Lets the contenders run in turns, A B A B, with the machine's limits measured in between."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machine import Machine, MachineLimits, busy_seconds
from worker_process import WorkerError, WorkerProcess
from workloads import ModelCosts, Workload

_WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class Plan:
    """What is measured, how often, on which model.

    Attributes:
        adapters: the names of the model's adapters.
        room: what the engines must hold, whichever of the workloads are run.
        timeout: the longest silence of a worker, in seconds.
    """

    folder: Path
    costs: ModelCosts
    adapters: list[str]
    workloads: list[Workload]
    room: dict[str, int]
    turns: int
    threads: int
    timeout: float


@dataclass(frozen=True)
class Measurement:
    """One run of a workload.

    Attributes:
        other_cores: how many cores were busy with something else meanwhile.
        limits: those of the machine right before and after, averaged.
    """

    workload: str
    turn: int
    seconds: float
    tokens_per_second: float
    first_tokens: list[int]
    other_cores: float
    limits: MachineLimits


@dataclass
class Contender:
    """An engine and what became of it."""

    name: str
    command: list[str] | None
    environment: dict[str, str]
    absence: str | None = None
    failure: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    precision: str = ""
    startup_seconds: float | None = None
    peak_memory_bytes: int | None = None
    measurements: list[Measurement] = field(default_factory=list)

    def takes(self, workload: Workload) -> bool:
        return self.name == "mindgen" or not workload.num_adapters


def run_turns(contenders: list[Contender], plan: Plan, machine: Machine, logs: Path) -> bool:
    """Fills in the contenders' results; False when interrupted, with what there is so far.

    A contender that fails keeps what it had and is left out from then on.
    """
    running: dict[str, _Runner] = {}
    with ExitStack() as stack:
        try:
            _start_all(contenders, running, plan, logs, stack)
            limits = machine.measure()
            for turn in range(plan.turns):
                for workload in plan.workloads:
                    limits = _take_turn(contenders, running, machine, limits, workload, turn)
            complete = True
        except KeyboardInterrupt:
            _say("interrupted")
            complete = False
        for runner in running.values():
            runner.record_memory()
    return complete


def _start_all(contenders, running: "dict[str, _Runner]", plan: Plan, logs: Path, stack: ExitStack) -> None:
    for contender in contenders:
        _attempt(contender, running, lambda contender=contender: _prepare(contender, plan, logs))
        if contender.absence is None and contender.failure is None:
            _say(f"{contender.name}: starting")
            runner = stack.enter_context(_Runner(contender, plan, logs))
            running[contender.name] = runner
            _attempt(contender, running, runner.start)


def _take_turn(
    contenders: list[Contender],
    running: "dict[str, _Runner]",
    machine: Machine,
    before: MachineLimits,
    workload: Workload,
    turn: int,
) -> MachineLimits:
    """Adds a measurement to each contender; returns the machine's limits after the last."""
    for contender in contenders:
        if contender.name not in running or not contender.takes(workload):
            continue
        result = _attempt(contender, running, lambda name=contender.name: running[name].run(workload, turn))
        after = machine.measure()
        if result is not None:
            measurement = Measurement(workload.name, turn, **result, limits=_average(before, after))
            contender.measurements.append(measurement)
            rate = f"{measurement.tokens_per_second:.4g} tokens/s in {measurement.seconds:.2f} s"
            _say(f"turn {turn + 1}, {workload.name}, {contender.name}: {rate}")
        before = after
    return before


def _attempt(contender: Contender, running: "dict[str, _Runner]", action):
    """The action's result, or None once its worker has failed, which ends the contender."""
    if contender.absence is not None:
        return None
    try:
        return action()
    except WorkerError as error:
        contender.failure = str(error)
        _say(f"{contender.name} failed: {error}")
        if contender.name in running:
            running.pop(contender.name).close()
        return None


def _prepare(contender: Contender, plan: Plan, logs: Path) -> None:
    """Learns whether the engine is there, and lets it convert the model, in a process that goes before any timing."""
    log = logs.with_name(f"{logs.name}-{contender.name}-prepare.log")
    with WorkerProcess(contender.command, log, contender.environment) as process:
        answer = process.request({"command": "prepare", "folder": str(plan.folder)}, plan.timeout)
    contender.absence = answer.get("absent")
    contender.versions = answer.get("versions", {})
    if contender.absence:
        _say(f"{contender.name} is absent: {contender.absence}")


class _Runner:
    """A contender's process, from its start to its end."""

    def __init__(self, contender: Contender, plan: Plan, logs: Path) -> None:
        log = logs.with_name(f"{logs.name}-{contender.name}.log")
        self._contender = contender
        self._plan = plan
        self._process = WorkerProcess(contender.command, log, contender.environment)

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.close()

    def start(self) -> None:
        """Loads the model, times the first token from the start of the process on, and warms everything up."""
        limits = {"threads": self._plan.threads, **self._plan.room}
        request = {"command": "load", "folder": str(self._plan.folder), "limits": limits}
        self._contender.precision = self._process.request(request, self._plan.timeout)["precision"]
        self._generate([[1] * 8], 1, [None])
        self._contender.startup_seconds = time.perf_counter() - self._process.started
        for workload in self._plan.workloads:
            if self._contender.takes(workload):
                prompts = workload.prompts(self._plan.turns, self._plan.costs.vocab_size)
                adapters = workload.adapters(self._plan.adapters)
                self._generate(prompts, min(workload.new_tokens, _WARM_UP_TOKENS), adapters)

    def run(self, workload: Workload, turn: int) -> dict[str, Any]:
        """The fields of a Measurement that its worker can tell."""
        prompts = workload.prompts(turn, self._plan.costs.vocab_size)
        adapters = workload.adapters(self._plan.adapters)
        first_token_seconds = None
        if workload.rate == "decode":
            first_token_seconds = min(self._generate(prompts, 1, adapters)["seconds"] for _ in range(2))
        others = busy_seconds() - self._process.busy_seconds()
        answer = self._generate(prompts, workload.new_tokens, adapters)
        others = busy_seconds() - self._process.busy_seconds() - others
        rate = workload.tokens_per_second(answer["seconds"], first_token_seconds)
        return {**answer, "tokens_per_second": rate, "other_cores": max(0.0, others / answer["seconds"])}

    def record_memory(self) -> None:
        self._contender.peak_memory_bytes = self._process.peak_memory()

    def _generate(self, prompts: list[list[int]], new_tokens: int, adapters: list[str | None]) -> dict:
        request = {"command": "run", "prompts": prompts, "new_tokens": new_tokens, "adapters": adapters}
        return self._process.request(request, self._plan.timeout)


def _average(a: MachineLimits, b: MachineLimits) -> MachineLimits:
    return MachineLimits((a.read_bandwidth + b.read_bandwidth) / 2, (a.product_rate + b.product_rate) / 2)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
