"""S-LoRA's curve: throughput as adapters multiply, against the base model alone in the same run.

    python benchmarks/slora.py [--registered 5 100 2000] [--popularity uniform] [--ranks 8 mixed] [--turns 3]
    python benchmarks/slora.py --registered --baselines [enabled eight] --new_tokens 32
    python benchmarks/slora.py --quick

Requests name registered adapters, whose contents all differ; slots hold as many as a batch has sequences. The base
model runs alone before and after each few cases, so that what the machine does to one it does to the others. "limit" is
the share that is possible if reading is all that costs: the bytes of the model over those of the model and of the
batch's adapters, once for each step. --baselines compares with an engine without adapters: LoRA that nobody uses, eight
adapters, one for each request with slots for all (distinct) or for half of them (crowded); merging adapters into the
weights one group after another (merge; timed on copies of the weights, the group then runs at the base model's rate),
and PEFT's mixed batch against PEFT without adapters (peft). slora_plot.py joins the JSON files of several runs.
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from random_model import make_model
from slora_adapters import RANKS, register
from slora_baselines import PeftBatch, merge_seconds
from slora_baselines import is_available as has_baselines
from workloads import read_costs

from mindgen.adapters.loader import read_claim
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.memory_plan import lora_rank_bytes
from mindgen.engine.open_engine import open_engine
from mindgen.sampling_params import SamplingParams
from mindgen.weights.architecture import read_model_config
from mindgen.weights.weight_files import find_weights

REQUESTS, PROMPT_LEN = 32, 32
# Which of n registered adapters each of the requests names.
POPULARITIES: dict[str, Callable[[np.random.Generator, int], list[int]]] = {
    "identical": lambda generator, n: [0] * REQUESTS,
    "zipf": lambda generator, n: np.minimum(generator.zipf(1.5, REQUESTS) - 1, n - 1).tolist(),
    "uniform": lambda generator, n: generator.integers(0, n, REQUESTS).tolist(),
    "distinct": lambda generator, n: [index % n for index in generator.permutation(max(n, REQUESTS))[:REQUESTS]],
}


CASES_BETWEEN = 3  # runs of the base model
MEANS = ("enabled", "eight", "distinct", "crowded", "merge", "peft")


class Run(NamedTuple):
    """Tokens per second, the median time to the first token, and what it took to bring adapters in.

    Attributes:
        load_ms: of each adapter, in the reading thread and for the copy into its slot.
    """

    rate: float
    first_token_ms: float
    steps: int = 0
    loads: int = 0
    load_ms: float = 0.0


@dataclass
class Case:
    registered: int
    popularity: str
    ranks: str
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    limits: list[float] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    loads: list[int] = field(default_factory=list)
    load_ms: list[float] = field(default_factory=list)

    def add(self, run: Run, ratio: float, limit: float) -> None:
        for values, value in (
            (self.rates, run.rate), (self.ratios, ratio), (self.limits, limit), (self.steps, run.steps),
            (self.first_token_ms, run.first_token_ms), (self.loads, run.loads), (self.load_ms, run.load_ms),
        ):  # fmt: skip
            values.append(value)

    @property
    def uses_one(self) -> bool:
        """Such cases are all the same."""
        return self.registered == 1 or self.popularity == "identical"


class Bench:
    """One engine for each kind of ranks, for slots are as large as the largest needs; the base model runs on it too."""

    def __init__(self, folder: Path, ranks: str, registered: int, new_tokens: int, slots: int = REQUESTS) -> None:
        self.names = register(folder, registered, ranks)
        config = EngineConfig(
            max_num_seqs=REQUESTS, max_loras=slots, max_model_len=512, enable_prefix_caching=False,
            adapter_memory="4GiB", host_adapter_memory="2GiB",
        )  # fmt: skip
        self._spec = EngineSpec(read_model_config(folder), "bfloat16", config)
        self._weight_bytes = read_costs(folder).weight_bytes
        self._engine = open_engine(self._spec, find_weights(folder, None, 1), self.names)
        self._new_tokens = new_tokens
        self._turn = 0

    def limit(self, adapters: list[str]) -> float:
        """By the bytes of a step in which each of these requests has a token, as a share of those of the base model."""
        (rank_bytes,) = lora_rank_bytes(self._spec, has_tables=False)
        claims = [read_claim(self.names.get(name)) for name in set(adapters)]
        return self._weight_bytes / (self._weight_bytes + rank_bytes * sum(claim.rank for claim in claims))

    def run(self, adapters: list[str | None], new_tokens: int | None = None) -> Run:
        self._turn += 1
        prompts, new_tokens = make_prompts(self._turn, len(adapters)), new_tokens or self._new_tokens
        params = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        before, steps = self._engine.metrics().adapters, 0
        started = time.perf_counter()
        requests = [
            self._engine.add_request(prompt, params, adapter)
            for prompt, adapter in zip(prompts, adapters, strict=True)
        ]  # fmt: skip
        while self._engine.has_unfinished():
            self._engine.step()
            steps += 1
        seconds = time.perf_counter() - started
        assert all(request.error is None for request in requests)
        first = [request.metrics.first_token_time - started for request in requests]
        after = self._engine.metrics().adapters
        loads, load_seconds = after.loads - before.loads, after.load_seconds - before.load_seconds
        rate = len(adapters) * new_tokens / seconds
        return Run(rate, statistics.median(first) * 1e3, steps, loads, load_seconds / max(loads, 1) * 1e3)


def make_prompts(seed: int, count: int) -> list[list[int]]:
    return np.random.default_rng(seed).integers(300, 500, (count, PROMPT_LEN)).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("output/benchmarks/qwen2.5-0.5b"))
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--registered", type=int, nargs="*", default=[1, 5, 100, 1000, 2000])
    parser.add_argument("--popularity", nargs="+", choices=POPULARITIES, default=list(POPULARITIES))
    parser.add_argument("--ranks", nargs="+", choices=RANKS, default=list(RANKS))
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="few cases, 32 tokens, one turn")
    parser.add_argument("--baselines", nargs="*", choices=MEANS, help="all of them if none is named")
    parser.add_argument("--peft_tokens", type=int, default=2, help="of each request to PEFT, which takes long (2)")
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/slora.json"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.registered, arguments.popularity, arguments.ranks = [5, 2000], ["zipf", "uniform"], ["8"]
        arguments.new_tokens, arguments.turns = 32, 1
    make_model(arguments.folder, arguments.shape)
    if arguments.registered:
        print(
            f"{'ranks':>6}{'registered':>12}{'popularity':>12}"
            f"{'tokens/s':>10}{'of base':>9}{'spread':>14}{'limit':>7}{'first ms':>10}"
            f"{'steps':>7}{'loads':>7}{'each ms':>9}"
        )
        rows = [summary(case) for ranks in arguments.ranks for case in measure(arguments, ranks)]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.baselines is not None:
        compare(arguments, arguments.baselines or list(MEANS))


def measure(arguments: argparse.Namespace, ranks: str) -> list[Case]:
    bench = Bench(arguments.folder, ranks, max(arguments.registered), arguments.new_tokens)
    names = bench.names.names()
    cases: list[Case] = []
    for count, popularity in itertools.product(arguments.registered, arguments.popularity):
        case = Case(count, popularity, ranks)
        if not case.uses_one or not any(each.uses_one for each in cases):
            cases.append(case)
    nobody: list[str | None] = [None] * REQUESTS
    bench.run(nobody, 2)
    bench.run([names[index % len(names)] for index in range(REQUESTS)], 2)  # compiles
    for turn in range(arguments.turns):
        base = bench.run(nobody).rate
        for first in range(0, len(cases), CASES_BETWEEN):
            runs = [(case, *run_case(bench, case, turn)) for case in cases[first : first + CASES_BETWEEN]]
            after = bench.run(nobody).rate
            for case, run, limit in runs:
                case.add(run, 2 * run.rate / (base + after), limit)
                if turn == arguments.turns - 1:
                    report(case)
            base = after
    return cases


def run_case(bench: Bench, case: Case, turn: int) -> tuple[Run, float]:
    """The run, and the limit of its ratio."""
    names, generator = bench.names.names(), np.random.default_rng([turn, case.registered])
    chosen = [names[index] for index in POPULARITIES[case.popularity](generator, case.registered)]
    return bench.run(chosen), bench.limit(chosen)


def compare(arguments: argparse.Namespace, chosen: list[str]) -> None:
    """Adapters of rank 8 in a batch, by every means, as shares of the base model alone."""
    folder, tokens = arguments.folder, arguments.new_tokens
    names = register(folder, REQUESTS, "8").names()
    eight = [names[index % 8] for index in range(REQUESTS)]
    nobody: list[str | None] = [None] * REQUESTS
    # What it is called, the slots it needs, and the adapters of the requests.
    engines = {
        "enabled": ("LoRA enabled, base only", REQUESTS, nobody),
        "eight": ("8 adapters", REQUESTS, eight),
        "distinct": ("32 adapters, 32 slots", REQUESTS, names),
        "crowded": ("32 adapters, 16 slots", REQUESTS // 2, names),
    }
    print(f"{'':>28}{'of base':>9}{'first ms':>10}")
    plain = Bench(folder, "8", 0, tokens)
    plain.run(nobody, 2)  # compiles
    for name in chosen:
        if name in engines:
            title, slots, adapters = engines[name]
            bench = Bench(folder, "8", REQUESTS, tokens, slots)
            bench.run(nobody, 2)
            bench.run(names, 2)  # compiles, and loads
            report_means(title, plain, arguments.turns, partial(bench.run, adapters))
        elif has_baselines() and name == "merge":
            merge = partial(merge_and_swap, folder, plain, names, tokens)
            report_means("merge and swap, 8 adapters", plain, arguments.turns, merge)
        elif has_baselines() and name == "peft":
            report_peft(folder, names[:8], eight, arguments.peft_tokens)


def report_means(title: str, plain: Bench, turns: int, run: Callable[[], Run]) -> None:
    ratios, first = [], []
    for _ in range(turns):
        before = plain.run([None] * REQUESTS).rate
        rate, milliseconds, *_ = run()
        after = plain.run([None] * REQUESTS).rate
        ratios.append(2 * rate / (before + after))
        first.append(milliseconds)
    print(f"{title:>28}{statistics.median(ratios):9.2f}{statistics.median(first):10.0f}", flush=True)


def report_peft(folder: Path, names: list[str], adapters: list[str], tokens: int) -> None:
    peft = PeftBatch(folder, {name: folder / "registered" / name for name in names})
    prompts = make_prompts(0, REQUESTS)
    base, mixed = (peft.rate(prompts, each, tokens) for each in ([None] * REQUESTS, adapters))
    print(
        f"{'PEFT, 8 adapters':>28}{mixed / base:9.2f}  of PEFT's own base, {mixed:.1f} against {base:.1f} tokens/s; "
        f"{tokens} tokens each"
    )


def merge_and_swap(folder: Path, plain: Bench, names: list[str], tokens: int) -> Run:
    """The rate, and when half of the requests have begun, of eight groups one after another."""
    seconds = first = 0.0
    for group in range(8):
        merging = merge_seconds(folder, folder / "registered" / names[group])
        rate, milliseconds, *_ = plain.run([None] * (REQUESTS // 8))
        if group == 4:
            first = (seconds + merging) * 1e3 + milliseconds
        seconds += merging + REQUESTS // 8 * tokens / rate
    return Run(REQUESTS * tokens / seconds, first)


def summary(case: Case) -> dict:
    medians = {"rate": case.rates, "of_base": case.ratios, "limit": case.limits, "first_ms": case.first_token_ms}
    return {**vars(case), **{name: statistics.median(values) for name, values in medians.items()}}


def report(case: Case) -> None:
    medians = summary(case)
    spread = f"{min(case.ratios):.2f}..{max(case.ratios):.2f}"
    print(
        f"{case.ranks:>6}{case.registered:12d}{case.popularity:>12}{medians['rate']:10.1f}{medians['of_base']:9.2f}"
        f"{spread:>14}{medians['limit']:7.2f}{medians['first_ms']:10.0f}"
        f"{statistics.median(case.steps):7.0f}{statistics.median(case.loads):7.0f}{statistics.median(case.load_ms):9.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
