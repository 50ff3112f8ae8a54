"""S-LoRA's curve: throughput as adapters multiply, against the base model alone in the same run.

    python benchmarks/slora.py [--registered 5 100 2000] [--popularity uniform] [--ranks 8 mixed] [--turns 3]
    python benchmarks/slora.py --registered --baselines --new_tokens 32
    python benchmarks/slora.py --quick

Requests name registered adapters, whose contents all differ; slots hold as many as a batch has sequences. Every turn
runs the base model alone, then each case, so that what the machine does to one it does to the others. --baselines adds
an engine without adapters, half the slots that the requests need, merging adapters into the weights one group after
another (timed on copies of the weights; the group then runs at the base model's rate), and PEFT's mixed batch.
"""

import argparse
import itertools
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from random_model import make_adapter, make_model
from slora_baselines import PeftBatch, merge_seconds
from slora_baselines import is_available as has_baselines

from mindgen.adapters.registry import AdapterRegistry
from mindgen.checkpoint.weight_files import find_weights
from mindgen.engine.config import EngineConfig
from mindgen.engine.engine import Engine
from mindgen.model_config import read_model_config
from mindgen.sampling_params import SamplingParams

REQUESTS, PROMPT_LEN, PEFT_TOKENS = 32, 32, 8
CONTENTS = 8  # files on disk of each rank; scalings of their own make them different adapters
RANKS = {"8": [8], "mixed": [8, 16, 32, 64]}
# Which of n registered adapters each of the requests names.
POPULARITIES: dict[str, Callable[[np.random.Generator, int], list[int]]] = {
    "identical": lambda generator, n: [0] * REQUESTS,
    "zipf": lambda generator, n: np.minimum(generator.zipf(1.5, REQUESTS) - 1, n - 1).tolist(),
    "uniform": lambda generator, n: generator.integers(0, n, REQUESTS).tolist(),
    "distinct": lambda generator, n: [index % n for index in generator.permutation(max(n, REQUESTS))[:REQUESTS]],
}


@dataclass
class Case:
    registered: int
    popularity: str
    ranks: str
    rates: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    first_token_ms: list[float] = field(default_factory=list)

    @property
    def uses_one(self) -> bool:
        """Such cases are all the same."""
        return self.registered == 1 or self.popularity == "identical"


def register(folder: Path, count: int, ranks: str) -> AdapterRegistry:
    """So many adapters, each with a configuration of its own beside one of the contents."""
    folders = {}
    for number in range(count):
        rank = RANKS[ranks][number % len(RANKS[ranks])]
        content = folder / "contents" / f"rank-{rank}-{number % CONTENTS}"
        make_adapter(content, folder, rank, seed=number % CONTENTS)
        path = folder / "registered" / f"{ranks}-{number}"
        if not (path / "adapter_config.json").is_file():
            path.mkdir(parents=True, exist_ok=True)
            weights = path / "adapter_model.safetensors"
            if not weights.exists():
                os.link(content / weights.name, weights)
            config = json.loads((content / "adapter_config.json").read_text())
            (path / "adapter_config.json").write_text(
                json.dumps({**config, "lora_alpha": config["lora_alpha"] * (1 + number * 1e-6)})
            )
        folders[f"{ranks}-{number}"] = path
    return AdapterRegistry(folders)


class Bench:
    """One engine for each kind of ranks, for slots are as large as the largest needs; the base model runs on it too."""

    def __init__(self, folder: Path, ranks: str, registered: int, new_tokens: int, slots: int = REQUESTS) -> None:
        self.names = register(folder, registered, ranks)
        config = EngineConfig(
            max_num_seqs=REQUESTS, max_loras=slots, max_model_len=512, enable_prefix_caching=False,
            adapter_memory="4GiB", host_adapter_memory="2GiB",
        )  # fmt: skip
        self._engine = Engine(find_weights(folder, None, 1), read_model_config(folder), self.names, "bfloat16", config)
        self._new_tokens = new_tokens
        self._turn = 0

    def run(self, adapters: list[str | None]) -> tuple[float, float]:
        """Tokens per second, and the median time to the first token in ms."""
        self._turn += 1
        prompts = make_prompts(self._turn, len(adapters))
        params = SamplingParams(max_tokens=self._new_tokens, temperature=0, ignore_eos=True)
        started = time.perf_counter()
        requests = [
            self._engine.add_request(prompt, params, adapter)
            for prompt, adapter in zip(prompts, adapters, strict=True)
        ]  # fmt: skip
        while self._engine.has_unfinished():
            self._engine.step()
        seconds = time.perf_counter() - started
        assert all(request.error is None for request in requests)
        first = [request.metrics.first_token_time - started for request in requests]
        return len(adapters) * self._new_tokens / seconds, statistics.median(first) * 1e3


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
    parser.add_argument("--baselines", action="store_true")
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/slora.json"))
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.registered, arguments.popularity, arguments.ranks = [5, 2000], ["zipf", "uniform"], ["8"]
        arguments.new_tokens, arguments.turns = 32, 1
    make_model(arguments.folder, arguments.shape)
    if arguments.registered:
        print(
            f"{'ranks':>6}{'registered':>12}{'popularity':>12}"
            f"{'tokens/s':>10}{'of base':>9}{'spread':>14}{'first ms':>10}",
        )
        rows = [summary(case) for ranks in arguments.ranks for case in measure(arguments, ranks)]
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.baselines:
        compare(arguments)


def measure(arguments: argparse.Namespace, ranks: str) -> list[Case]:
    bench = Bench(arguments.folder, ranks, max(arguments.registered), arguments.new_tokens)
    names = bench.names.names()
    cases: list[Case] = []
    for count, popularity in itertools.product(arguments.registered, arguments.popularity):
        case = Case(count, popularity, ranks)
        if not case.uses_one or not any(each.uses_one for each in cases):
            cases.append(case)
    bench.run([None] * REQUESTS)
    bench.run([names[index % len(names)] for index in range(REQUESTS)])  # compiles
    for turn in range(arguments.turns):
        base, _ = bench.run([None] * REQUESTS)
        for case in cases:
            generator = np.random.default_rng([turn, case.registered])
            chosen = POPULARITIES[case.popularity](generator, case.registered)
            rate, first = bench.run([names[index] for index in chosen])
            after, _ = bench.run([None] * REQUESTS)
            case.rates.append(rate)
            case.ratios.append(2 * rate / (base + after))
            case.first_token_ms.append(first)
            base = after
            if turn == arguments.turns - 1:
                report(case)
    return cases


def compare(arguments: argparse.Namespace) -> None:
    """Eight adapters of rank 8 in a batch, by every means, as shares of the base model alone."""
    folder, tokens = arguments.folder, arguments.new_tokens
    plain = Bench(folder, "8", 0, tokens)
    bench = Bench(folder, "8", REQUESTS, tokens)
    crowded = Bench(folder, "8", REQUESTS, tokens, slots=REQUESTS // 2)
    names = bench.names.names()
    eight, distinct = [names[index % 8] for index in range(REQUESTS)], names
    nobody: list[str | None] = [None] * REQUESTS
    means: dict[str, Callable[[], tuple[float, float]]] = {
        "LoRA enabled, base only": lambda: bench.run(nobody),
        "8 adapters": lambda: bench.run(eight),
        "32 adapters, 32 slots": lambda: bench.run(distinct),
        "32 adapters, 16 slots": lambda: crowded.run(distinct),
    }
    if has_baselines():
        means["merge and swap, 8 adapters"] = lambda: merge_and_swap(folder, plain, names, tokens)
    print(f"{'':>28}{'of base':>9}{'first ms':>10}")
    for run in (lambda: plain.run(nobody), *list(means.values())[:4]):
        run()  # compiles, and loads
    for name, run in means.items():
        ratios, first = [], []
        for _ in range(arguments.turns):
            before, _ = plain.run(nobody)
            rate, milliseconds = run()
            after, _ = plain.run(nobody)
            ratios.append(2 * rate / (before + after))
            first.append(milliseconds)
        print(f"{name:>28}{statistics.median(ratios):9.2f}{statistics.median(first):10.0f}", flush=True)
    if has_baselines():
        paths = {name: bench.names.get(name).folder for name in names[:8]}
        peft, prompts = PeftBatch(folder, paths), make_prompts(0, REQUESTS)
        base, mixed = (peft.rate(prompts, each, PEFT_TOKENS) for each in (nobody, eight))
        print(f"PEFT, {PEFT_TOKENS} tokens each: base {base:.1f} tokens/s, 8 adapters {mixed:.1f} ({mixed / base:.2f})")


def merge_and_swap(folder: Path, plain: Bench, names: list[str], tokens: int) -> tuple[float, float]:
    """The rate, and when half of the requests have begun, of eight groups one after another."""
    seconds = first = 0.0
    for group in range(8):
        merging = merge_seconds(folder, folder / "registered" / names[group])
        rate, milliseconds = plain.run([None] * (REQUESTS // 8))
        if group == 4:
            first = (seconds + merging) * 1e3 + milliseconds
        seconds += merging + REQUESTS // 8 * tokens / rate
    return REQUESTS * tokens / seconds, first


def summary(case: Case) -> dict:
    return {**vars(case), "rate": statistics.median(case.rates), "of_base": statistics.median(case.ratios)}


def report(case: Case) -> None:
    rate, ratio = statistics.median(case.rates), statistics.median(case.ratios)
    spread = f"{min(case.ratios):.2f}..{max(case.ratios):.2f}"
    first = statistics.median(case.first_token_ms)
    print(
        f"{case.ranks:>6}{case.registered:12d}{case.popularity:>12}{rate:10.1f}{ratio:9.2f}{spread:>14}{first:10.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
