"""What the parts of an engine's steps take, seen from outside: shared by the benchmarks that take steps apart."""

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from mindgen.engine import engine as engine_module
from mindgen.loop.text_engine import TextEngine

PARTS = (
    "schedule", "build batch", "bind", "network", "sampling", "sampling kernel", "postprocess", "detokenize", "rest",
)  # fmt: skip


class StepTimes:
    """Seconds of the parts of each step of an engine with its texts, while it is open.

    Attributes:
        steps: of each step, the parts, which add up to the whole; bind is what leads up to the call into the executor,
            sampling what leads up to its kernel and back.
    """

    def __init__(self, texts: TextEngine) -> None:
        engine = texts.engine
        self.steps: list[dict[str, float]] = []
        self._running: dict[str, float] = defaultdict(float)
        runner, output = engine._runner, engine._output
        self._patched = {
            "schedule": (engine._scheduler, "schedule"),
            "build batch": (engine_module, "build_batch"),
            "run": (runner, "run"),
            "run graph": (runner._kernels, "run_graph"),
            "sample": (output._sampler, "sample"),
            "sampling kernel": (output._sampler._kernels, "call"),
            "process": (output, "process"),
            "engine": (engine, "step"),
            "texts": (texts, "step"),
        }
        self._functions = {part: getattr(owner, name) for part, (owner, name) in self._patched.items()}

    def __enter__(self) -> "StepTimes":
        for part, (owner, name) in self._patched.items():
            setattr(owner, name, self._timed(self._functions[part], part))
        return self

    def __exit__(self, *_: object) -> None:
        for part, (owner, name) in self._patched.items():
            setattr(owner, name, self._functions[part])

    def _timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            self._running[part] += time.perf_counter() - start
            if part == "texts":
                self._end_step()
            return result

        return timed

    def _end_step(self) -> None:
        seconds = self._running
        known = ("schedule", "build batch", "run", "process")
        self.steps.append({
            "schedule": seconds["schedule"],
            "build batch": seconds["build batch"],
            "bind": seconds["run"] - seconds["run graph"],
            "network": seconds["run graph"],
            "sampling": seconds["sample"] - seconds["sampling kernel"],
            "sampling kernel": seconds["sampling kernel"],
            "postprocess": seconds["process"] - seconds["sample"],
            "detokenize": seconds["texts"] - seconds["engine"],
            "rest": seconds["engine"] - sum(seconds[part] for part in known),
        })  # fmt: skip
        self._running.clear()
