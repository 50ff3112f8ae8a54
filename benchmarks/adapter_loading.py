"""How long an adapter takes from warm disk into a slot, and what that does to the steps of running requests.

    python benchmarks/adapter_loading.py [--ranks 8 16 64] [--loads 16]

Steps are those of requests to the base model; the adapters are asked for one after the other by short requests, which
have the engine read, check, pack and write them. In turns with as many short requests to the base model.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from random_model import make_adapter, make_model

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.open_engine import open_engine
from mindgen.sampling_params import SamplingParams
from mindgen.weights.architecture import read_model_config
from mindgen.weights.weight_files import find_weights

RUNNING, PROMPT_LEN = 8, 32
CONTENTS = 8


@dataclass
class Steps:
    """Times in ms: of the steps that only decode, and of all while short requests come and go."""

    quiet: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    loading: list[float] = field(default_factory=list)


class Bench:
    def __init__(self, folder: Path, rank: int) -> None:
        contents = {f"rank-{rank}-{seed}": folder / "contents" / f"rank-{rank}-{seed}" for seed in range(CONTENTS)}
        for seed, path in enumerate(contents.values()):
            make_adapter(path, folder, rank, seed)
        self._names = list(contents)
        self._registry = AdapterRegistry(contents)
        config = EngineConfig(
            max_num_seqs=RUNNING + 1, max_loras=1, max_model_len=2048, enable_prefix_caching=False,
            host_adapter_memory="1MiB",
        )  # fmt: skip
        spec = EngineSpec(read_model_config(folder), "bfloat16", config)
        self._engine = open_engine(spec, find_weights(folder, None, 1), self._registry)
        self._generator = np.random.default_rng(rank)
        self.steps = Steps()

    def load_idle(self, index: int) -> float:
        """ms in the reading thread and for the copy into the slot, with nothing else to do."""
        name = self._names[index % CONTENTS]
        before = self._engine.adapter_status(self._registry.get(name)).load_seconds
        self._run([self._add(1, name)])
        return (self._engine.adapter_status(self._registry.get(name)).load_seconds - before) * 1e3

    def turn(self, loads: int) -> None:
        """Long requests to the base model, and meanwhile short ones to it, then to adapters that are not there."""
        long_ones = [self._add(30 + 8 * loads) for _ in range(RUNNING)]
        self._run([self._add(2)])
        self.steps.quiet += [self._step() for _ in range(10)]
        for kind, names in (("base", [None]), ("loading", self._names)):
            for index in range(loads):
                getattr(self.steps, kind).extend(self._run([self._add(1, names[index % len(names)])]))
        for request in long_ones:
            self._engine.abort(request)

    def _add(self, tokens: int, adapter: str | None = None):
        prompt = self._generator.integers(300, 500, PROMPT_LEN).tolist()
        return self._engine.add_request(
            prompt, SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True), adapter
        )

    def _run(self, requests: list) -> list[float]:
        steps = []
        while not all(request.is_finished for request in requests):
            steps.append(self._step())
        return steps

    def _step(self) -> float:
        started = time.perf_counter()
        self._engine.step()
        return (time.perf_counter() - started) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("output/benchmarks/qwen2.5-0.5b"))
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 16, 64])
    parser.add_argument("--loads", type=int, default=16)
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/adapter_loading.json"))
    arguments = parser.parse_args()
    make_model(arguments.folder, arguments.shape)
    print(f"{'rank':>4}{'load ms, best':>15}{'median':>8}{'step ms: decode':>17}{'+ prompt':>10}{'+ load':>8}  longest")
    rows = [measure(arguments.folder, rank, arguments.loads) for rank in arguments.ranks]
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure(folder: Path, rank: int, loads: int) -> dict:
    bench = Bench(folder, rank)
    for index in range(CONTENTS):
        bench.load_idle(index)  # compiles, and warms the disk's cache
    times = [bench.load_idle(index) for index in range(loads)]
    bench.turn(loads)
    steps = bench.steps
    print(
        f"{rank:4d}{min(times):15.1f}{statistics.median(times):8.1f}{statistics.median(steps.quiet):17.1f}"
        f"{statistics.median(steps.base):10.1f}{statistics.median(steps.loading):8.1f}"
        f"  {max(steps.quiet):.1f}, {max(steps.base):.1f}, {max(steps.loading):.1f}",
        flush=True,
    )
    return {"rank": rank, "load_ms": times, **{name: getattr(steps, name) for name in ("quiet", "base", "loading")}}


if __name__ == "__main__":
    main()
