"""The matrix product against torch's linear, and against what the machine gives at best.

    python benchmarks/matmul.py [--json PATH] [--threads N] [--library PATH]

Whatever is compared takes turns within one run, as machines speed up and slow down from minute to minute.
"""

import argparse
import json
import mmap
import platform
import statistics
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

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
# N, K of one matrix; so many of them are read in turn that no cache holds them.
SINGLE_ROW_SHAPES = [(9728, 896), (896, 4864), (2048, 2048)]
WEIGHT_BYTES = 384 << 20
PAUSE = 0.05  # the threads of the last one spin for a while before they sleep


def random_bfloat16(*shape: int) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


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


def weights_in_memory(huge_pages: bool) -> np.ndarray:
    memory = mmap.mmap(-1, WEIGHT_BYTES)
    memory.madvise(mmap.MADV_HUGEPAGE if huge_pages else mmap.MADV_NOHUGEPAGE)
    weights = np.frombuffer(memory, np.uint16)
    weights[:] = np.resize(random_bfloat16(1 << 20), weights.shape)
    return weights


def compare_single_row(library, shape, weights: np.ndarray, turns: int) -> dict:
    N, K = shape
    matrices = weights[: weights.size // (N * K) * (N * K)].reshape(-1, N, K)
    x, y = random_bfloat16(1, K), np.empty((1, N), np.uint16)

    def multiply():
        for w in matrices:
            library.call("matmul", x, w, None, y, 1, 1, N, K, False, True, DType.BFLOAT16)

    products, reads = [], []
    for _ in range(turns):
        products += [matrices.nbytes / seconds / 1e9 for seconds in timed(multiply, 1)]
        reads.append(library.measure_read_bandwidth() / 1e9)
        time.sleep(PAUSE)
    return {
        "N": N,
        "K": K,
        "mindgen_gbps": statistics.median(products),
        "read_gbps": statistics.median(reads),
        "ratio": statistics.median(products) / statistics.median(reads),
        "median_ratio_of_turns": statistics.median(p / r for p, r in zip(products, reads, strict=True)),
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
    report["single_row"] = []
    for huge_pages in (False, True):
        weights = weights_in_memory(huge_pages)
        for shape in SINGLE_ROW_SHAPES:
            row = compare_single_row(library, shape, weights, arguments.turns)
            report["single_row"].append({"huge_pages": str(huge_pages), **row})
    print_table("one row, weights read from memory, medians", report["single_row"])

    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
