"""The matrix products against torch's linear, and against what the machine gives at best.

    python benchmarks/matmul.py [--json PATH] [--threads N] [--layers N] [--library PATH]

Whatever is compared takes turns within one run, as machines speed up and slow down from minute to minute.
"""

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from decoder import LAYERS, Adapters, Decoder, random_bfloat16, run

from mindgen.kernels.library import DType, KernelLibrary

try:
    import torch
except ImportError:
    torch = None

# M, N, K: a batch of prompts, fewer rows, and the layers of a 0.5B model.
SHAPES = [
    (512, 2048, 2048),
    (128, 2048, 2048),
    (32, 2048, 2048),
    (8, 2048, 2048),
    (512, 9728, 896),
    (512, 896, 4864),
]
# Rows of a step: one sequence, some, and a prompt, of which only the last row is worth an output.
STEP_ROWS = [1, 4, 16, 32]
PROMPT_ROWS = 1024
LORA_ROWS, LORA_SLOTS, LORA_RANK = 32, 8, 8
PAUSE = 0.05  # the threads of the last one spin for a while before they sleep


def timed(function, times: int) -> list[float]:
    """Seconds of each call but the first."""
    function()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    time.sleep(PAUSE)
    return seconds


def compare_shape(library: KernelLibrary, shape, turns: int) -> dict:
    M, N, K = shape
    x, w, y = random_bfloat16(M, K), random_bfloat16(N, K), np.empty((M, N), np.uint16)
    contenders = {
        "mindgen": lambda: library.call("matmul", x, w, None, y, 1, M, N, K, False, True, DType.BFLOAT16),
        "limit": lambda: rates.append(library.measure_product_rate(DType.BFLOAT16)),
    }
    if torch is not None:
        tx, tw = (torch.from_numpy(a.view(np.int16)).view(torch.bfloat16) for a in (x, w))
        contenders["torch"] = lambda: torch.nn.functional.linear(tx, tw)
    seconds, rates = {name: [] for name in contenders}, []
    for _ in range(turns):
        for name, function in contenders.items():
            seconds[name] += timed(function, 1 if name == "limit" else 5)
    operations = 2 * M * N * K
    result = {"M": M, "N": N, "K": K, "peak_gflops": max(rates) / 1e9}
    for name in ("mindgen", "torch"):
        if name in seconds:
            result[f"{name}_ms"] = statistics.median(seconds[name]) * 1e3
            result[f"{name}_gflops"] = operations / statistics.median(seconds[name]) / 1e9
            result[f"{name}_best_gflops"] = operations / min(seconds[name]) / 1e9
    if torch is not None:
        result["speedup"] = result["torch_ms"] / result["mindgen_ms"]
    return result


def compare_step(library: KernelLibrary, decoder: Decoder, rows: int, turns: int) -> dict:
    """All products of a step against the time that memory or arithmetic need at best."""
    calls = decoder.calls(library, rows, DType.BFLOAT16)
    seconds, reads, rates = [], [], []
    for _ in range(turns):
        seconds += timed(lambda: run(calls), 1)
        rates.append(library.measure_product_rate(DType.BFLOAT16))
        reads.append(library.measure_read_bandwidth())
        time.sleep(PAUSE)
    bandwidth, rate = statistics.median(reads), statistics.median(rates)
    limit = max(decoder.bytes / bandwidth, rows * decoder.operations / rate)
    return {
        "rows": rows,
        "mindgen_ms": statistics.median(seconds) * 1e3,
        "limit_ms": limit * 1e3,
        "read_gbps": bandwidth / 1e9,
        "peak_gflops": rate / 1e9,
        "ratio": limit / statistics.median(seconds),
        "best_ratio": limit / min(seconds),
    }


def compare_lora(library: KernelLibrary, decoder: Decoder, adapters: Adapters, rows: int, turns: int) -> dict:
    """A step with an adapter update after each product, against the bare step."""
    bare = decoder.calls(library, rows, DType.BFLOAT16)
    updates = adapters.calls(library, rows, DType.BFLOAT16)
    both = [call for pair in zip(bare, updates, strict=False) for call in pair] + bare[len(updates) :]
    seconds = {"bare": [], "both": []}
    for _ in range(turns):
        seconds["bare"] += timed(lambda: run(bare), 1)
        seconds["both"] += timed(lambda: run(both), 1)
    medians = {name: statistics.median(values) * 1e3 for name, values in seconds.items()}
    return {
        "rows": rows,
        "slots": adapters.slots,
        "rank": adapters.rank,
        "bare_ms": medians["bare"],
        "with_lora_ms": medians["both"],
        "cost": medians["both"] / medians["bare"] - 1,
    }


def print_table(title: str, rows: list[dict]) -> None:
    print(f"\n{title}")
    print("".join(f"{name:>22}" for name in rows[0]))
    for row in rows:
        print("".join(f"{value:22.2f}" if isinstance(value, float) else f"{value:>22}" for value in row.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/matmul.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--layers", type=int, default=LAYERS, help="of the model whose steps are timed")
    parser.add_argument("--library", type=Path, help="default: that of the installed package")
    arguments = parser.parse_args()

    path = arguments.library or distribution("mindgen").locate_file("mindgen/kernels/libmindgen_cpu.so")
    library = KernelLibrary(path)
    library.num_threads = arguments.threads
    if torch is None:
        print("torch is not installed: no comparison with it")
    else:
        torch.set_num_threads(arguments.threads)

    report = {
        "machine": platform.processor() or platform.machine(),
        "instruction_set": library.instruction_set,
        "threads": arguments.threads,
        "torch": torch and torch.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in report.items()))
    report["shapes"] = [compare_shape(library, s, arguments.turns) for s in SHAPES]
    print_table("bfloat16, medians", report["shapes"])
    report["steps"] = []
    for huge_pages in (False, True):
        decoder = Decoder(huge_pages, arguments.layers)
        for rows in STEP_ROWS:
            step = compare_step(library, decoder, rows, arguments.turns)
            report["steps"].append({"huge_pages": str(huge_pages), **step})
    adapters = Adapters(LORA_SLOTS, LORA_RANK, arguments.layers)
    report["lora"] = [compare_lora(library, decoder, adapters, LORA_ROWS, arguments.turns)]
    prompt = Decoder(huge_pages=True, layers=min(4, arguments.layers), vocabulary=0)
    report["prompt"] = [compare_step(library, prompt, PROMPT_ROWS, arguments.turns)]
    print_table("decoding step, medians", report["steps"])
    print_table("the same with LoRA", report["lora"])
    print_table("layers of a prompt", report["prompt"])

    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
