"""Two ranks of one thread against one rank of one and of two threads, on a model of the shape of Qwen2.5-0.5B.

    python benchmarks/tensor_parallel.py [--turns 3] [--folder FOLDER]

The contenders live all the while, frozen while another one runs, and take turns; ratios are of the same turn. Two ranks
do the work of two threads: what they are slower is what the sums over both, the messages between them and their uneven
ends take.
"""

import argparse
import json
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from random_model import SHAPES, make_model
from worker_process import WorkerProcess
from workloads import Workload

_TIMEOUT = 300.0
_RANKS = "2 ranks of 1 thread"
_OTHERS = ("1 rank of 1 thread", "1 rank of 2 threads")
_SIZES = {_RANKS: (2, 2), _OTHERS[0]: (1, 1), _OTHERS[1]: (1, 2)}  # ranks, threads of all of them

# Those of "decode" count their later steps, those of "prefill" the first one.
WORKLOADS = [
    Workload("decode, 1 request", "decode", 1, 32, 24),
    Workload("decode, 32 requests", "decode", 32, 32, 12),
    Workload("prompt of 1,024", "prefill", 1, 1024, 1),
]


@dataclass
class Case:
    """A workload; seconds of the median step of each turn, and the tokens of the last one, by contender."""

    workload: Workload
    seconds: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in _SIZES})
    tokens: dict[str, list[list[int]]] = field(default_factory=dict)

    def ratios(self, other: str) -> list[float]:
        """How many times faster two ranks are."""
        return [theirs / ours for ours, theirs in zip(self.seconds[_RANKS], self.seconds[other], strict=True)]

    def same_tokens(self) -> float:
        """The share of requests whose first token is the same on two ranks as on one."""
        ours, theirs = self.tokens[_RANKS], self.tokens[_OTHERS[0]]
        return statistics.mean(a[0] == b[0] for a, b in zip(ours, theirs, strict=True))

    def row(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "ms": {name: statistics.median(seconds) * 1e3 for name, seconds in self.seconds.items()},
            "ratios": {name: sorted(self.ratios(name)) for name in _OTHERS},
            "same_first_tokens": self.same_tokens(),
        }


def serve(folder: Path, ranks: int, threads: int) -> None:
    """Answers each line {prompts, new_tokens} with the seconds of its steps and the tokens."""
    from mindgen.adapters.registry import AdapterRegistry
    from mindgen.engine.engine_config import EngineConfig
    from mindgen.engine.engine_spec import EngineSpec
    from mindgen.engine.open_engine import open_engine
    from mindgen.sampling_params import SamplingParams
    from mindgen.weights.architecture import read_model_config
    from mindgen.weights.weight_files import find_weights

    config = EngineConfig(
        max_num_seqs=32, max_model_len=2048, enable_prefix_caching=False, num_threads=threads,
        tensor_parallel_size=ranks,
    )  # fmt: skip
    spec = EngineSpec(read_model_config(folder), "bfloat16", config)
    engine = open_engine(spec, find_weights(folder, None, ranks), AdapterRegistry({}))
    for line in sys.stdin:
        asked = json.loads(line)
        params = SamplingParams(max_tokens=asked["new_tokens"], temperature=0, ignore_eos=True)
        requests = [engine.add_request(prompt, params, None) for prompt in asked["prompts"]]
        seconds = []
        while engine.has_unfinished():
            started = time.perf_counter()
            engine.step()
            seconds.append(time.perf_counter() - started)
        tokens = [request.sequences[0].output_token_ids for request in requests]
        print(json.dumps({"seconds": seconds, "tokens": tokens}), flush=True)
    engine.close()


def measure(cases: list[Case], folder: Path, turns: int, vocab_size: int, logs: Path) -> None:
    """Fills in the cases."""
    with ExitStack() as stack:
        running = {}
        for name, (ranks, threads) in _SIZES.items():
            command = [sys.executable, __file__, "--folder", str(folder), "--serve", str(ranks), str(threads)]
            log = logs / f"tensor_parallel-{name.replace(' ', '_')}.log"
            running[name] = stack.enter_context(WorkerProcess(command, log, {}))
        for turn in range(-1, turns):  # the first one compiles
            for case in cases:
                asked = {"prompts": case.workload.prompts(turn + 1, vocab_size), "new_tokens": case.workload.new_tokens}
                for name, process in running.items():
                    answer = process.request(asked, _TIMEOUT)
                    steps = answer["seconds"][1:] if case.workload.rate == "decode" else answer["seconds"][:1]
                    if turn >= 0:
                        case.seconds[name].append(statistics.median(steps))
                        case.tokens[name] = answer["tokens"]


def report(rows: list[dict[str, Any]]) -> None:
    print(f"{'ms of a step':24}" + "".join(f"{name:>22}" for name in _SIZES))
    for row in rows:
        print(f"{row['workload']:24}" + "".join(f"{row['ms'][name]:22.2f}" for name in _SIZES))
    print(f"\n{'speed of two ranks over':24}" + "".join(f"{name:>30}" for name in _OTHERS))
    for row in rows:
        spreads = [row["ratios"][name] for name in _OTHERS]
        texts = [f"{statistics.median(each):.2f} ({each[0]:.2f} to {each[-1]:.2f})" for each in spreads]
        print(f"{row['workload']:24}" + "".join(f"{text:>30}" for text in texts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--folder", type=Path, default=Path("output/benchmarks/qwen2.5-0.5b"))
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/tensor_parallel.json"))
    parser.add_argument("--serve", type=int, nargs=2, metavar=("RANKS", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.folder, *arguments.serve)
        return
    make_model(arguments.folder, arguments.shape)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    cases = [Case(workload) for workload in WORKLOADS]
    measure(cases, arguments.folder, arguments.turns, SHAPES[arguments.shape]["vocab_size"], arguments.json.parent)
    rows = [case.row() for case in cases]
    report(rows)
    arguments.json.write_text(json.dumps({"rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
