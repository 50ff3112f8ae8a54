"""Sampling against reading the logits once, and against torch with transformers' processors.

    python benchmarks/sampling.py [--json PATH] [--threads N] [--rows B] [--vocabulary V]

Whatever is compared takes turns within one run, as machines speed up and slow down from minute to minute. The last
column is the share of a decode step of so many milliseconds.
"""

import argparse
import json
import platform
import statistics
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from matmul import print_table, timed

from mindgen.engine.sampler import Sampler
from mindgen.engine.sampling_row import SamplingRow, Vocabulary
from mindgen.kernels.library import KernelLibrary
from mindgen.sampling_params import SamplingParams

try:
    import torch
    import transformers
except ImportError:
    torch = None

PROMPT_LEN, OUTPUT_LEN = 500, 200
PENALTIES = {"repetition_penalty": 1.1, "presence_penalty": 0.2, "frequency_penalty": 0.1}
CASES = {
    "greedy": {"temperature": 0},
    "greedy, penalties": {"temperature": 0, **PENALTIES},
    "temperature": {"temperature": 0.8},
    "top_k": {"temperature": 0.8, "top_k": 50},
    "top_k, top_p, penalties": {"temperature": 0.8, "top_k": 50, "top_p": 0.9, **PENALTIES},
    "top_p": {"temperature": 0.8, "top_p": 0.9},
    "min_p": {"temperature": 0.8, "min_p": 0.05},
    "typical_p": {"temperature": 0.8, "typical_p": 0.9},
    "greedy, 5 logprobs": {"temperature": 0, "logprobs": 5},
}


def make_rows(params: SamplingParams, count: int, vocab_size: int) -> list[SamplingRow]:
    tokens = np.random.default_rng(1).integers(vocab_size, size=(count, PROMPT_LEN + OUTPUT_LEN)).tolist()
    vocabulary = Vocabulary(vocab_size)
    rows = [SamplingRow(params, each[:PROMPT_LEN], vocabulary, seed) for seed, each in enumerate(tokens)]
    for row, each in zip(rows, tokens, strict=True):
        for token_id in each[PROMPT_LEN:]:
            row.append(token_id)
    return rows


def torch_sampling(params: SamplingParams, logits: np.ndarray):
    """transformers' processors and torch.multinomial; it has no presence and frequency penalties."""
    scores = torch.from_numpy(logits)
    tokens = torch.randint(logits.shape[1], (len(logits), PROMPT_LEN + OUTPUT_LEN))
    processors = []
    if params.repetition_penalty != 1:
        processors.append(transformers.RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if not params.is_greedy:
        processors.append(transformers.TemperatureLogitsWarper(params.temperature))
        for value, off, warper in (
            (params.min_p, 0, transformers.MinPLogitsWarper),
            (params.typical_p, 1, transformers.TypicalLogitsWarper),
            (params.top_k, 0, transformers.TopKLogitsWarper),
            (params.top_p, 1, transformers.TopPLogitsWarper),
        ):
            if value != off:
                processors.append(warper(value))

    def sample():
        processed = scores
        for processor in processors:
            processed = processor(tokens, processed)
        if params.logprobs is not None:
            torch.log_softmax(scores, dim=-1).topk(params.logprobs)
        return processed.argmax(-1) if params.is_greedy else torch.multinomial(processed.softmax(-1), 1)

    return sample


def compare(library: KernelLibrary, name: str, logits: np.ndarray, arguments: argparse.Namespace) -> dict:
    params = SamplingParams(**CASES[name])
    rows, sampler = make_rows(params, *logits.shape), Sampler(library)
    contenders = {"mindgen": lambda: sampler.sample(logits, rows)}
    if torch is not None:
        contenders["torch"] = torch_sampling(params, logits)
    seconds, reads = {contender: [] for contender in contenders}, []
    for _ in range(arguments.turns):
        reads.append(library.measure_read_bandwidth())
        for contender, function in contenders.items():
            seconds[contender] += timed(function, 5 if contender == "mindgen" else 1)
    medians = {contender: statistics.median(values) * 1e3 for contender, values in seconds.items()}
    result = {"case": name, "mindgen_ms": medians["mindgen"]}
    result["read_once_ms"] = logits.nbytes / statistics.median(reads) * 1e3
    result["times_reading"] = result["mindgen_ms"] / result["read_once_ms"]
    if torch is not None:
        result["torch_ms"] = medians["torch"]
        result["speedup"] = medians["torch"] / medians["mindgen"]
    result["step_share"] = medians["mindgen"] / arguments.step_ms
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/sampling.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--step_ms", type=float, default=40, help="of a decode step of so many rows")
    parser.add_argument("--library", type=Path, help="default: that of the installed package")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    arguments = parser.parse_args()

    path = arguments.library or distribution("mindgen").locate_file("mindgen/kernels/libmindgen_cpu.so")
    library = KernelLibrary(path)
    library.num_threads = arguments.threads
    if torch is None:
        print("torch and transformers are not installed: no comparison with them")
    else:
        torch.set_num_threads(arguments.threads)
    report = {
        "machine": platform.processor() or platform.machine(),
        "instruction_set": library.instruction_set,
        "threads": arguments.threads,
        "torch": torch and torch.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    shape = (arguments.rows, arguments.vocabulary)
    logits = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(3)
    report["cases"] = [compare(library, name, logits, arguments) for name in arguments.only]
    print_table(f"{shape[0]} rows of {shape[1]} logits, medians", report["cases"])
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
