"""What `mindgen batch --runner ray` does with a thousand workers, without them: clock and model are not real; who gets
which part, the counting of what comes back, and the files of a job are.

python benchmarks/batch_simulation.py --workers 1000 --rows 100000000 --part_rows 1000
"""

import argparse
import heapq
import json
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from batch_files import Plan, measure_files, part_totals

from mindgen.batch.part_schedule import PartSchedule
from mindgen.batch.progress import Progress
from mindgen.batch.totals import Totals


@dataclass(slots=True)
class Outcome:
    """Of a simulated job.

    Attributes:
        hours: of the simulated clock, and
        ideal_hours: if no worker ended, and all ended with the last row.
        decisions: parts given, noted as answered or as lost.
        driver_seconds: of this processor, for the decisions and for counting what came back.
        driver_share: of the simulated time.
    """

    hours: float = 0.0
    ideal_hours: float = 0.0
    decisions: int = 0
    workers_lost: int = 0
    parts_taken_up: int = 0
    rows_redone: int = 0
    driver_seconds: float = 0.0
    driver_share: float = 0.0
    memory_growth_mib: float = 0.0


@dataclass(slots=True)
class Worker:
    """Does the rows of its parts at equal rates; `parts` is what is left of each.

    Attributes:
        version: changes with its parts, so that what was foreseen before does not count.
    """

    speed: float
    parts: dict[int, float] = field(default_factory=dict)
    since: float = 0.0
    version: int = 0

    def advance(self, now: float) -> None:
        if self.parts:
            done = (now - self.since) * self.speed / len(self.parts)
            self.parts = {part: left - done for part, left in self.parts.items()}
        self.since = now

    def next_end(self) -> tuple[float, int] | None:
        """When, and which part."""
        if not self.parts:
            return None
        part = min(self.parts, key=self.parts.__getitem__)
        return self.since + max(self.parts[part], 0.0) * len(self.parts) / self.speed, part


class Simulation:
    """A job from its first to its last part."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._outcome = plan, Outcome()
        self._random = np.random.default_rng(plan.seed)
        self._workers = {number: Worker(speed) for number, speed in enumerate(plan.speeds(self._random))}
        self._schedule = PartSchedule(range(plan.num_parts))
        self._left: dict[int, float] = {}  # rows of parts that a worker has left unfinished
        self._lost: set[int] = set()  # workers in whose place there is none yet
        self._now = 0.0
        self._progress = Progress(plan.rows, 1, lambda: self._now)
        self._totals = msgspec.json.encode(part_totals(plan, self._random))
        self._events: list[tuple[float, int, str, int]] = []  # when, which worker, what, and its version

    def run(self) -> Outcome:
        outcome, plan, memory = self._outcome, self._plan, peak_memory_mib()
        outcome.ideal_hours = plan.rows / sum(worker.speed for worker in self._workers.values()) / 3600
        for number in self._workers:
            self._give_parts(number)
            self._foresee_loss(number)
        while not self._schedule.is_finished:
            self._now, number, what, version = heapq.heappop(self._events)
            if what == "loss":
                self._lose(number)
            elif what == "start":
                self._lost.remove(number)
                self._give_parts(number)
                self._foresee_loss(number)
            elif version == self._workers[number].version:
                self._end_part(number)
        outcome.hours = self._now / 3600
        outcome.driver_share = outcome.driver_seconds / self._now
        outcome.memory_growth_mib = peak_memory_mib() - memory
        return outcome

    def _give_parts(self, number: int) -> None:
        worker = self._workers[number]
        worker.advance(self._now)
        with self._deciding():
            taken = []
            while (part := self._schedule.take(number)) is not None:
                taken.append(part)
        for part in taken:
            rows = min(self._plan.part_rows, self._plan.rows - part * self._plan.part_rows)
            worker.parts[part] = self._left.pop(part, float(rows))
        self._outcome.decisions += len(taken)
        self._foresee_end(number)

    def _end_part(self, number: int) -> None:
        worker = self._workers[number]
        ended = worker.next_end()
        assert ended is not None
        worker.advance(self._now)
        del worker.parts[ended[1]]
        with self._deciding():
            self._schedule.note_answered(number, ended[1])
            self._progress.add_all(msgspec.json.decode(self._totals, type=Totals))
        self._outcome.decisions += 1
        self._give_parts(number)

    def _lose(self, number: int) -> None:
        worker, plan = self._workers[number], self._plan
        worker.advance(self._now)
        with self._deciding():
            lost = self._schedule.note_lost(number)
        for part in lost:
            self._left[part] = worker.parts[part]  # the rest is in its journal
            self._outcome.rows_redone += min(plan.slots // len(lost), round(worker.parts[part]))
        self._outcome.workers_lost += 1
        self._outcome.parts_taken_up += len(lost)
        self._outcome.decisions += len(lost)
        worker.parts, worker.version = {}, worker.version + 1
        self._lost.add(number)
        heapq.heappush(self._events, (self._now + plan.seconds_to_replace, number, "start", 0))
        for idle in [each for each, worker in self._workers.items() if not worker.parts and each not in self._lost]:
            self._give_parts(idle)

    def _foresee_end(self, number: int) -> None:
        worker = self._workers[number]
        worker.version += 1
        ended = worker.next_end()
        if ended is not None:
            heapq.heappush(self._events, (ended[0], number, "end", worker.version))

    def _foresee_loss(self, number: int) -> None:
        if self._plan.losses_per_hour:
            hours = float(self._random.exponential(1 / self._plan.losses_per_hour))
            heapq.heappush(self._events, (self._now + 3600 * hours, number, "loss", 0))

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        start = time.process_time()
        yield
        self._outcome.driver_seconds += time.process_time() - start


def peak_memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_ray(num_calls: int) -> float:
    """Seconds that the driver's look at so many calls takes, with real ones that do not end."""
    import ray

    never_placed = ray.remote(resources={"nobody_has_this": 1})(peak_memory_mib)
    ray.init("local", num_cpus=1, log_to_driver=False, include_dashboard=False)
    try:
        calls = [never_placed.remote() for _ in range(num_calls)]
        start = time.process_time()
        ray.wait(calls, num_returns=len(calls), timeout=0)
        return time.process_time() - start
    finally:
        ray.shutdown()


def read_plan(arguments: argparse.Namespace) -> Plan:
    return Plan(**{name: getattr(arguments, name) for name in Plan.__dataclass_fields__})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--workers", type=int, default=1000)
    add("--rows", type=int, default=100_000_000)
    add("--part_rows", type=int, default=1000)
    add("--rows_per_second", type=float, default=6.0)
    add("--speed_spread", type=float, default=0.05)
    add("--stragglers", type=float, default=0.01)
    add("--losses_per_hour", type=float, default=0.01)
    add("--seconds_to_replace", type=float, default=300.0)
    add("--slots", type=int, default=256)
    add("--output_tokens", type=int, default=300)
    add("--seed", type=int, default=0)
    add("--ray", action="store_true", help="measure as well what Ray takes to look at two calls for each worker")
    add("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    plan = read_plan(arguments)
    figures = asdict(Simulation(plan).run()) | asdict(measure_files(plan))
    figures["decisions_per_cpu_second"] = figures["decisions"] / figures["driver_seconds"]
    if arguments.ray:
        figures["ray_wait_seconds"] = measure_ray(2 * plan.workers)
    for name, value in figures.items():
        print(f"{name:26} {value:,}" if isinstance(value, int) else f"{name:26} {value:,.6g}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
