"""The steps of a Qwen2.5-0.5B-shaped model against what the machine gives at best, measured in turn with them.

    python benchmarks/steps.py [--turns 5] [--threads 2] [--shape qwen2.5-0.5b] [--folder FOLDER]

A step's bound is the slower of its bytes (weights, and the keys and values that are read) at the read bandwidth and of
its operations at the product rate. The table tells bound / time, so 1 is the machine's limit. A second table takes the
time outside kernels apart, from when the schedule is made until the text is there; what the profile takes for its
records is not counted.
"""

import argparse
import json
import os
import resource
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from random_model import SHAPES, make_model
from step_breakdown import outside_kernels, print_breakdown, summarize
from step_times import StepTimes
from workloads import ModelCosts, read_costs

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.open_engine import open_engine
from mindgen.kernels import plugin
from mindgen.kernels.library import DType
from mindgen.loop.request_reader import read_request
from mindgen.loop.text_engine import TextEngine
from mindgen.runner.profiling import MachineLimits, Profile
from mindgen.sampling_params import SamplingParams
from mindgen.text.tokenizer import load_tokenizer
from mindgen.weights.architecture import read_model_config
from mindgen.weights.model_config import ModelConfig
from mindgen.weights.weight_files import find_weights

_STEPS = 24  # of decoding, in a turn
_LONGEST_PROMPT = 8192


@dataclass
class Case:
    """Requests of one kind, whose prompts are computed before the decoding steps that are looked at.

    Attributes:
        only: of the kernel whose time counts alone; empty for whole steps.
        is_taken_apart: whether steps without the profile are measured as well.
        seconds, bounds: of the median step of each turn.
        outside: seconds outside kernels by part, of each step.
        profiled_seconds, plain_seconds: of the median step of each turn with and without the profile.
    """

    name: str
    num_requests: int
    prompt_len: int
    kind: str = "decode"
    with_adapters: bool = False
    only: str = ""
    is_taken_apart: bool = False
    seconds: list[float] = field(default_factory=list)
    bounds: list[float] = field(default_factory=list)
    outside: list[dict[str, float]] = field(default_factory=list)
    profiled_seconds: list[float] = field(default_factory=list)
    plain_seconds: list[float] = field(default_factory=list)


CASES = [
    Case("decode, 1 row", 1, 32, is_taken_apart=True),
    Case("decode, 32 rows", 32, 64, is_taken_apart=True),
    Case("decode, 32 rows over 8 adapters", 32, 64, with_adapters=True),
    Case("prompt of 1,024", 1, 1024, kind="prompt"),
    Case("decode, 1 row after 8,192", 1, 8192),
    Case("its attention alone", 1, 8192, only="PagedAttention"),
]


class Bench:
    def __init__(self, folder: Path, threads: int) -> None:
        self.kernels = plugin.load()
        self.model: ModelConfig = read_model_config(folder)
        self.costs: ModelCosts = read_costs(folder)
        registry = AdapterRegistry.read(folder)
        self.adapters = registry.names()
        self.max_model_len = min(_LONGEST_PROMPT + 64, self.model.max_position)
        config = EngineConfig(
            max_num_seqs=32, max_model_len=self.max_model_len, enable_prefix_caching=False, num_threads=threads
        )
        self.engine = open_engine(EngineSpec(self.model, "bfloat16", config), find_weights(folder, None, 1), registry)
        self.texts = TextEngine(self.engine, load_tokenizer(folder), self.model, registry, "error")

    def run(self, case: Case, turn: int) -> None:
        """One turn of a case, with the machine's limits measured before and after."""
        before = self._limits()
        profile = Profile(self.kernels, DType.BFLOAT16)
        with profile.recording():
            steps = self._steps(case, turn, profile)
        after = self._limits()
        case.seconds.append(self._step_seconds(profile, case))
        limits = MachineLimits(
            (before.read_bandwidth + after.read_bandwidth) / 2, (before.product_rate + after.product_rate) / 2
        )
        case.bounds.append(self._bound(case, limits))
        case.outside += outside_kernels(profile, case.kind, steps)
        if case.is_taken_apart:
            case.profiled_seconds.append(_median_step(steps))
            case.plain_seconds.append(_median_step(self._steps(case, turn, None)))

    def _steps(self, case: Case, turn: int, profile: Profile | None) -> list[dict[str, float]]:
        """The parts of all steps of a turn."""
        prompts = np.random.default_rng([turn, case.prompt_len]).integers(
            0, self.model.vocab_size, (case.num_requests, case.prompt_len)
        )
        params = SamplingParams(max_tokens=_STEPS if case.kind == "decode" else 1, temperature=0, ignore_eos=True)
        for index, prompt in enumerate(prompts.tolist()):
            adapter = self.adapters[index % len(self.adapters)] if case.with_adapters else None
            prepared = self.texts.prepare(read_request(prompt, params, adapter))
            self.texts.add(index, prepared, is_streamed=False)
        self.texts.profile = profile
        with StepTimes(self.texts) as times:
            while self.engine.has_unfinished():
                self.texts.step()
        return [parts for parts in times.steps if parts["bind"] > 0]  # others wait for adapters

    def _limits(self) -> MachineLimits:
        bandwidth = statistics.median(self.kernels.measure_read_bandwidth() for _ in range(3))
        return MachineLimits(bandwidth, self.kernels.measure_product_rate(DType.BFLOAT16))

    @staticmethod
    def _step_seconds(profile: Profile, case: Case) -> float:
        steps = [step for step in profile.steps if step.kind == case.kind]
        if not case.only:
            return statistics.median(step.end - step.start for step in steps) / 1e9
        return statistics.median(
            sum(
                call.duration
                for call in profile.calls
                if call.group.startswith(case.only) and step.start <= call.start <= step.end
            )
            for step in steps
        ) / 1e9  # fmt: skip

    def _bound(self, case: Case, limits: MachineLimits) -> float:
        token_bytes = 2 * 2 * self.model.num_layers * self.model.num_kv_heads * self.model.head_size
        context_bytes = case.num_requests * (case.prompt_len + _STEPS / 2) * token_bytes
        if case.only:
            return context_bytes / limits.read_bandwidth
        if case.kind == "prompt":
            return self.costs.prefill_operations(case.prompt_len) / limits.product_rate
        reading = (self.costs.weight_bytes + context_bytes) / limits.read_bandwidth
        operations = 2 * case.num_requests * (self.costs.layer_weights + self.costs.head_weights)
        return max(reading, operations / limits.product_rate)


def _median_step(steps: list[dict[str, float]]) -> float:
    return statistics.median(sum(parts.values()) for parts in steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument(
        "--folder", type=Path, help="of the model, which is made there; default: output/benchmarks/SHAPE"
    )
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/steps.json"))
    parser.add_argument("--outside_only", action="store_true", help="only the cases that the second table is about")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.is_taken_apart or not arguments.outside_only]
    folder = arguments.folder or Path("output/benchmarks") / arguments.shape
    make_model(folder, arguments.shape)
    bench = Bench(folder, arguments.threads)
    for case in cases:
        case.prompt_len = min(case.prompt_len, bench.max_model_len - 64)
    compiling = time.perf_counter()
    bench.run(Case("warm-up", 1, 8), 0)
    compiling = time.perf_counter() - compiling
    for case in (Case("warm-up", 2, 8, with_adapters=True), Case("warm-up", 1, 1024, kind="prompt")):
        bench.run(case, 0)
    for turn in range(arguments.turns):
        for case in cases:
            bench.run(case, turn)
    report(bench, cases, compiling, arguments.json)


def report(bench: Bench, cases: list[Case], compiling: float, path: Path) -> None:
    print(f"{'':34}{'ms':>8}{'bound ms':>10}{'bound / time':>14}{'spread':>14}{'outside kernels ms':>20}")
    rows = []
    for case in cases:
        shares = [bound / seconds for bound, seconds in zip(case.bounds, case.seconds, strict=True)]
        row = {
            "case": case.name,
            "ms": statistics.median(case.seconds) * 1e3,
            "bound_ms": statistics.median(case.bounds) * 1e3,
            "share": statistics.median(shares),
            "lowest": min(shares),
            "highest": max(shares),
            "outside_kernels_ms": None if case.only else statistics.median(step["all"] for step in case.outside) * 1e3,
        }
        rows.append(row)
        outside = "" if row["outside_kernels_ms"] is None else f"{row['outside_kernels_ms']:.2f}"
        spread = f"{row['lowest']:.2f}..{row['highest']:.2f}"
        print(f"{case.name:34}{row['ms']:8.2f}{row['bound_ms']:10.2f}{row['share']:14.2f}{spread:>14}{outside:>20}")
    base, adapted = CASES[1], CASES[2]
    ratios = [b / a for b, a in zip(base.seconds, adapted.seconds, strict=False)]
    weights = bench.costs.weight_bytes / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if ratios:
        print(f"32 rows over 8 adapters against base only: {statistics.median(ratios):.2f}")
    taken_apart = {
        case.name: summarize(case.outside, case.profiled_seconds, case.plain_seconds)
        for case in cases
        if case.is_taken_apart
    }
    print_breakdown(taken_apart)
    lowering = [graph.lowering_seconds for graph in bench.engine._runner._graphs.values()]
    print(f"first step with compiling: {compiling:.2f} s, lowering " + ", ".join(f"{each:.3f} s" for each in lowering))
    print(f"peak memory {peak:.0f} MiB, weights {weights:.0f} MiB")
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {
        "rows": rows,
        "outside_kernels_us": taken_apart,
        "adapters_ratio": statistics.median(ratios) if ratios else None,
        "first_step_s": compiling,
        "lowering_s": lowering,
        "peak_mib": peak,
    }
    path.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
