"""Where the time of steps goes: the kernel calls of the executor, against what the machine gives at best."""

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindgen.kernels.library import DType, KernelLibrary


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the engine; times are nanoseconds of time.monotonic_ns()."""

    start: int
    end: int
    num_tokens: int
    num_sequences: int

    @property
    def kind(self) -> str:
        return "decode" if self.num_tokens == self.num_sequences else "prompt"


@dataclass(frozen=True, slots=True)
class KernelCall:
    """One call: bytes it must touch and operations it must do; times as in Step.

    Attributes:
        recording: how long it took afterwards to record the call.
    """

    group: str
    name: str
    start: int
    duration: int
    num_bytes: int
    num_operations: int
    recording: int


@dataclass(frozen=True, slots=True)
class MachineLimits:
    """What all threads together give at best: bytes per second read, operations per second in registers."""

    read_bandwidth: float
    product_rate: float


@dataclass(frozen=True, slots=True)
class GroupSummary:
    """All calls of a kernel in steps of one kind.

    Attributes:
        share_of_limit: the time that the machine would take at best, divided by the time taken.
    """

    kind: str
    group: str
    num_calls: int
    seconds: float
    gigabytes_per_second: float
    gigaflops: float
    share_of_limit: float


class Profile:
    """Records the steps that run while it is open.

    Args:
        dtype: of the model, whose rate of products is the limit.
    """

    def __init__(self, kernels: KernelLibrary, dtype: DType) -> None:
        self.steps: list[Step] = []
        self.calls: list[KernelCall] = []
        self._kernels = kernels
        self._dtype = dtype

    @contextmanager
    def recording(self) -> Iterator["Profile"]:
        self._kernels.start_profile()
        try:
            yield self
        finally:
            self.calls += [_readable(call) for call in self._kernels.stop_profile()]

    @contextmanager
    def step(self, num_tokens: int, num_sequences: int) -> Iterator[None]:
        start = time.monotonic_ns()
        yield
        self.steps.append(Step(start, time.monotonic_ns(), num_tokens, num_sequences))

    def measure_limits(self) -> MachineLimits:
        """Medians of a few measurements, which take a second."""
        bandwidths = [self._kernels.measure_read_bandwidth() for _ in range(5)]
        rates = [self._kernels.measure_product_rate(self._dtype) for _ in range(5)]
        return MachineLimits(statistics.median(bandwidths), statistics.median(rates))

    def outside_kernels(self, kind: str) -> float:
        """The median seconds of a step of that kind in which no kernel runs, without what the profile itself takes."""
        times = [
            step.end - step.start - busy
            for step, busy in zip(self.steps, self.busy_times(), strict=True)
            if step.kind == kind
        ]
        return statistics.median(times) / 1e9

    def busy_times(self) -> list[int]:
        """Of each step, the nanoseconds in which kernels run or are being recorded."""
        busy_until = [step.start for step in self.steps]
        busy = [0] * len(self.steps)
        for index, call in sorted(self._placed_calls(), key=lambda placed: placed[1].start):
            end = call.start + call.duration + call.recording
            busy[index] += max(0, end - max(call.start, busy_until[index]))  # threads may run kernels side by side
            busy_until[index] = max(end, busy_until[index])
        return busy

    def recording_times(self) -> list[int]:
        """Of each step, the nanoseconds that went into the profile."""
        times = [0] * len(self.steps)
        for index, call in self._placed_calls():
            times[index] += call.recording
        return times

    def summarize(self, limits: MachineLimits) -> list[GroupSummary]:
        """By kind of step and kernel, the longest first."""
        groups: dict[tuple[str, str], list[KernelCall]] = {}
        for index, call in self._placed_calls():
            groups.setdefault((self.steps[index].kind, call.group), []).append(call)
        summaries = [_summarize(*key, calls, limits) for key, calls in groups.items()]
        return sorted(summaries, key=lambda summary: (summary.kind, -summary.seconds))

    def write_trace(self, path: Path) -> None:
        """A trace in Chrome's format, for chrome://tracing or Perfetto: steps above, kernels below."""
        events = [
            _event(f"{step.kind} step", 0, step.start, step.end - step.start, {
                "tokens": step.num_tokens, "sequences": step.num_sequences,
            })
            for step in self.steps
        ]  # fmt: skip
        lanes: list[int] = []  # until when each is taken
        for call in sorted(self.calls, key=lambda call: call.start):
            lane = next((lane for lane, end in enumerate(lanes) if end <= call.start), len(lanes))
            lanes[lane : lane + 1] = [call.start + call.duration]
            events.append(
                _event(call.group, 1 + lane, call.start, call.duration, {
                    "op": call.name, "bytes": call.num_bytes, "operations": call.num_operations,
                })
            )  # fmt: skip
        names = [
            {"name": "thread_name", "ph": "M", "pid": 0, "tid": thread, "args": {"name": name}}
            for thread, name in enumerate(("steps", *["kernels"] * max(1, len(lanes))))
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"traceEvents": names + events, "displayTimeUnit": "ms"}))

    def _placed_calls(self) -> Iterator[tuple[int, KernelCall]]:
        """Each call with the number of its step; both are in order of time."""
        index = 0
        for call in self.calls:
            while index < len(self.steps) and call.start > self.steps[index].end:
                index += 1
            if index < len(self.steps) and call.start >= self.steps[index].start:
                yield index, call


def _event(name: str, thread: int, start: int, duration: int, details: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name, "ph": "X", "pid": 0, "tid": thread, "ts": start / 1e3, "dur": duration / 1e3, "args": details,
    }  # fmt: skip


def _readable(call: Any) -> KernelCall:
    """The group is the op and the layer that calls it: of .../mlp-LlamaMlp/down_proj-Linear/MatMul-op0, down_proj."""
    op, name = call.op.decode(), call.name.decode()
    scopes = [scope.split("-")[0] for scope in name.split("/")[1:-1]]
    layer = next((scope for scope in reversed(scopes) if scope not in ("network", "lora") and not scope.isdigit()), "")
    group = f"{op} {layer}".strip()
    return KernelCall(group, name, call.start_ns, call.duration_ns, call.bytes, call.operations, call.recording_ns)


def _summarize(kind: str, group: str, calls: list[KernelCall], limits: MachineLimits) -> GroupSummary:
    seconds = sum(call.duration for call in calls) / 1e9
    num_bytes, operations = sum(call.num_bytes for call in calls), sum(call.num_operations for call in calls)
    at_best = sum(
        max(call.num_bytes / limits.read_bandwidth, call.num_operations / limits.product_rate) for call in calls
    )
    return GroupSummary(
        kind=kind,
        group=group,
        num_calls=len(calls),
        seconds=seconds,
        gigabytes_per_second=num_bytes / seconds / 1e9,
        gigaflops=operations / seconds / 1e9,
        share_of_limit=at_best / seconds,
    )
