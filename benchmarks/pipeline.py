"""What pipeline stages cost on one machine: the steps of a random model in several stages against one process.

    python benchmarks/pipeline.py [--json PATH] [--stages 2] [--turns 5] [--threads N] [--shape tiny] [--folder FOLDER]

Milliseconds of a step, medians, in turns within one run; the ratio is of one process to the pipeline.
"""

import argparse
import json
import os
import statistics
from pathlib import Path

from matmul import print_table
from prompt_gains import first_token_seconds, make_engine, random_prompt, step_seconds
from random_model import SHAPES, make_model

from mindgen.engine.engine import Engine
from mindgen.sampling_params import SamplingParams

PROMPT = 1024  # tokens
BATCHES = (1, 8, 32)
_STEPS = 6


def decode_seconds(engine: Engine, seed: int, num_requests: int) -> float:
    endless = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    running = [engine.add_request(random_prompt(engine, [seed, i], 16), endless) for i in range(num_requests)]
    for _ in range(2):
        engine.step()
    seconds = [step_seconds(engine) for _ in range(_STEPS)]
    for request in running:
        engine.abort(request)
    return statistics.median(seconds)


def measure(engine: Engine, seed: int) -> list[float]:
    """Milliseconds of a step for each of the batches, and of a prompt."""
    seconds = [decode_seconds(engine, seed + size, size) for size in BATCHES]
    return [1e3 * each for each in (*seconds, first_token_seconds(engine, random_prompt(engine, [seed], PROMPT)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/pipeline.json"))
    parser.add_argument("--stages", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--folder", type=Path, help="default: output/benchmarks/SHAPE")
    arguments = parser.parse_args()
    folder = arguments.folder or Path("output/benchmarks") / arguments.shape
    make_model(folder, arguments.shape)

    limits = {"max_num_seqs": max(BATCHES), "enable_prefix_caching": False}
    one = make_engine(folder, arguments.threads, **limits)
    pipeline = make_engine(folder, arguments.threads, pipeline_parallel_size=arguments.stages, **limits)
    try:
        for engine in (one, pipeline):
            measure(engine, 1 << 20)
        turns = [(measure(one, turn << 10), measure(pipeline, turn << 10)) for turn in range(arguments.turns)]
    finally:
        pipeline.close()
    rows = []
    for place, name in enumerate([*(f"decode, {size} requests" for size in BATCHES), f"prompt of {PROMPT} tokens"]):
        pairs = [(alone[place], staged[place]) for alone, staged in turns]
        rows.append({
            "step": name,
            "one process": statistics.median(alone for alone, _ in pairs),
            f"{arguments.stages} stages": statistics.median(staged for _, staged in pairs),
            "ratio": statistics.median(alone / staged for alone, staged in pairs),
        })  # fmt: skip
    print_table("milliseconds of a step", rows)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
