"""What prefix caching and chunked prefill gain on a random model.

    python benchmarks/prompt_gains.py [--json PATH] [--turns 5] [--threads N] [--shape tiny] [--folder FOLDER]

Prefix caching: seconds to the first token of requests with a long common beginning, the first one and the later ones.
Chunked prefill: the longest time that running requests wait for a token while a long prompt comes in, with and without
it, in turns within one run.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
from matmul import print_table
from random_model import SHAPES, make_model

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine import Engine
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.open_engine import open_engine
from mindgen.sampling_params import SamplingParams
from mindgen.weights.architecture import read_model_config
from mindgen.weights.weight_files import find_weights

COMMON, OWN = 1024, 16  # tokens of the prompts that begin alike
NUM_RUNNING, LONG = 8, 1536  # requests that run, and tokens of the prompt that comes in
CHUNK = 128
_NUM_LATER = 4


def make_engine(folder: Path, threads: int, **limits: object) -> Engine:
    config = EngineConfig(**{"max_model_len": 2048, "max_num_seqs": 16, "num_threads": threads, **limits})
    spec = EngineSpec(read_model_config(folder), "bfloat16", config)
    return open_engine(spec, find_weights(folder, None, 1), AdapterRegistry({}))


def random_prompt(engine: Engine, seed: list[int], length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, engine._spec.model.vocab_size - 1, length).tolist()


def first_token_seconds(engine: Engine, prompt: list[int]) -> float:
    start = time.perf_counter()
    engine.add_request(prompt, SamplingParams(temperature=0, max_tokens=1))
    while engine.has_unfinished():
        engine.step()
    return time.perf_counter() - start


def measure_prefix(engine: Engine, turns: int) -> dict[str, float]:
    first, later = [], []
    for turn in range(turns):
        common = random_prompt(engine, [turn, 0, 0], COMMON)
        prompts = [common + random_prompt(engine, [turn, 1, i], OWN) for i in range(1 + _NUM_LATER)]
        seconds = [first_token_seconds(engine, prompt) for prompt in prompts]
        first.append(seconds[0])
        later.append(statistics.median(seconds[1:]))
    return {
        "first ms": statistics.median(first) * 1e3,
        "later ms": statistics.median(later) * 1e3,
        "gain": statistics.median(one / other for one, other in zip(first, later, strict=True)),
    }


def longest_gap(engine: Engine, seed: int) -> tuple[float, float, float]:
    """Running requests' usual time between two tokens, the longest beside a long prompt, and what that takes."""
    endless = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
    running = [engine.add_request(random_prompt(engine, [seed, i], 16), endless) for i in range(NUM_RUNNING)]
    for _ in range(8):
        engine.step()
    gaps = [step_seconds(engine) for _ in range(8)]
    prompt = random_prompt(engine, [seed, NUM_RUNNING], LONG)
    start = time.perf_counter()
    long = engine.add_request(prompt, SamplingParams(temperature=0, max_tokens=1))
    beside = []
    while not long.is_finished:
        beside.append(step_seconds(engine))
    seconds = time.perf_counter() - start
    for request in running:
        engine.abort(request)
    return statistics.median(gaps), max(beside), seconds


def step_seconds(engine: Engine) -> float:
    start = time.perf_counter()
    engine.step()
    return time.perf_counter() - start


def summarize_gaps(name: str, measured: list[tuple[float, float, float]]) -> dict[str, object]:
    usual, longest, seconds = (statistics.median(values) * 1e3 for values in zip(*measured, strict=True))
    return {"chunks": name, "usual gap ms": usual, "longest gap ms": longest, "prompt ms": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/prompt_gains.json"))
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--folder", type=Path, help="default: output/benchmarks/SHAPE")
    arguments = parser.parse_args()
    folder = arguments.folder or Path("output/benchmarks") / arguments.shape
    make_model(folder, arguments.shape)

    chunked = make_engine(folder, arguments.threads, max_num_batched_tokens=CHUNK)
    whole = make_engine(folder, arguments.threads, max_num_batched_tokens=2048, enable_chunked_prefill=False)
    for seed, engine in enumerate((chunked, whole), start=1000):
        longest_gap(engine, seed)
    prefix = measure_prefix(whole, arguments.turns)
    gaps: dict[str, list[tuple[float, float, float]]] = {f"of {CHUNK}": [], "none": []}
    for turn in range(arguments.turns):
        gaps[f"of {CHUNK}"].append(longest_gap(chunked, turn))
        gaps["none"].append(longest_gap(whole, turn))
    rows = [summarize_gaps(name, measured) for name, measured in gaps.items()]

    print_table(f"time to the first token, {COMMON} common tokens and {OWN} of one's own", [prefix])
    print_table(f"{NUM_RUNNING} running requests while a prompt of {LONG} comes in", rows)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps({"prefix": prefix, "gaps": rows}, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
