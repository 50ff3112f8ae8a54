"""What the engine spends outside the network in a decode step, by part; and how many requests of the demo pay.

    python benchmarks/engine_overhead.py [--json PATH] [--turns 5] [--threads N] [--batch_sizes 1 32 256]

The demo answers requests for its adapters in turn. Times are medians over all decode steps of all turns. The last lines
compare the token rate of 32 requests at once with that of one, in turns within this run.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from matmul import print_table
from step_times import PARTS, StepTimes

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig

PROMPT = "An increasing sequence: one, two, three,"
ADAPTERS = (None, "A1", "A2", "A3")
KINDS = {"greedy": {"temperature": 0}, "sampled": {"temperature": 0.8, "top_k": 50, "top_p": 0.9}}


def answer(llm: LLM, count: int, num_tokens: int, kind: str = "greedy", seed: int = 0) -> float:
    """Seconds that it takes to answer so many requests of so many tokens."""
    params = [
        SamplingParams(max_tokens=num_tokens, ignore_eos=True, seed=seed + i, **KINDS[kind]) for i in range(count)
    ]
    adapters = [ADAPTERS[(seed + i) % len(ADAPTERS)] for i in range(count)]
    start = time.perf_counter()
    llm.generate([PROMPT] * count, params, adapters)
    return time.perf_counter() - start


def measure_parts(llm: LLM, count: int, kind: str, turns: int, num_tokens: int) -> dict[str, Any]:
    decodes: list[dict[str, float]] = []
    for turn in range(turns):
        with StepTimes(llm._model._texts) as times:
            answer(llm, count, num_tokens, kind, seed=turn)
        decodes += times.steps[3:-1]  # prompts come in the first, requests end in the last
    row: dict[str, Any] = {"sampling params": kind, "sequences": count}
    row.update({part: statistics.median(step[part] for step in decodes) * 1e6 for part in PARTS})
    outside = [sum(step.values()) - step["network"] for step in decodes]
    row["outside"] = statistics.median(outside) * 1e6
    row["per sequence"] = row["outside"] / count
    row["share"] = statistics.median(part / sum(step.values()) for part, step in zip(outside, decodes, strict=True))
    return row


def measure_gain(llm: LLM, turns: int, num_tokens: int, count: int = 32) -> dict[str, Any]:
    """Tokens per second of one request, mean over the adapters, and of many; their ratio in each turn."""
    single, batch = [], []
    for turn in range(turns):
        seconds = [answer(llm, 1, num_tokens, seed=adapter) for adapter in range(len(ADAPTERS))]
        single.append(len(ADAPTERS) * num_tokens / sum(seconds))
        batch.append(count * num_tokens / answer(llm, count, num_tokens, seed=turn))
    ratios = [many / one for one, many in zip(single, batch, strict=True)]
    return {
        "requests": count,
        "single_tokens_per_second": statistics.median(single),
        "batch_tokens_per_second": statistics.median(batch),
        "ratio": statistics.median(ratios),
        "lowest_ratio": min(ratios),
        "highest_ratio": max(ratios),
    }


def bounds_of(rows: list[dict[str, Any]]) -> str:
    """What the parts of a greedy step allow the gain of a batch to be."""
    greedy = {row["sequences"]: row for row in rows if row["sampling params"] == "greedy"}
    one, most = greedy[min(greedy)], greedy[32 if 32 in greedy else max(greedy)]
    scale = most["sequences"] / one["sequences"]
    return (
        f"the network takes {one['network']:.0f} us for {one['sequences']} and {most['network']:.0f} for "
        f"{most['sequences']}: by itself it would give {scale * one['network'] / most['network']:.1f}; all else takes "
        f"{one['outside']:.0f} and {most['outside']:.0f} us, which is {most['per sequence']:.1f} us a sequence"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/engine_overhead.json"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=100, help="of each answer")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32, 256])
    arguments = parser.parse_args()
    config = EngineConfig(
        max_num_seqs=max(32, *arguments.batch_sizes), max_num_batched_tokens=8192, num_threads=arguments.threads
    )
    llm = LLM("demo", config=config)
    for count in arguments.batch_sizes:
        answer(llm, count, 8)

    rows = [
        measure_parts(llm, count, kind, arguments.turns, arguments.tokens)
        for kind in KINDS
        for count in arguments.batch_sizes
    ]
    gain = measure_gain(llm, arguments.turns, arguments.tokens)
    print_table("microseconds of a decode step, medians; share is that of all but the network", rows)
    print(
        f"\n{gain['requests']} requests at once: {gain['batch_tokens_per_second']:.0f} tokens/s, one alone: "
        f"{gain['single_tokens_per_second']:.0f}; ratio {gain['ratio']:.1f} "
        f"({gain['lowest_ratio']:.1f} to {gain['highest_ratio']:.1f})"
    )
    print(bounds_of(rows))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"steps": rows, "gain": gain}, indent=2) + "\n")
    print(f"written to {arguments.json}")


if __name__ == "__main__":
    main()
