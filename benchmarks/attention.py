"""Attention against what the machine gives at best, and against torch's scaled_dot_product_attention.

    python benchmarks/attention.py [--json PATH] [--threads N] [--library PATH] [--only decode prompts bounds]

Decode reads the caches of so many layers in turn that no CPU cache holds them, their blocks in random order. Whatever
is compared takes turns within one run, as machines speed up and slow down from minute to minute. "bounds" takes one
sequence's attention apart: reads alone, arithmetic alone, both, and both within a step.
"""

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
from attention_bounds import CACHED_BLOCKS, BlockReads, compare_parts, print_parts
from decoder import array_in_memory, random_bfloat16
from matmul import PAUSE, print_table, timed

from mindgen.kernels.library import DType, KernelLibrary

try:
    import torch
except ImportError:
    torch = None

BLOCK_SIZE = 16
CACHE_ELEMENTS = 1 << 28  # of all layers
# Query heads, key/value heads, head size: Qwen2.5-0.5B, Llama 3 8B, and no sharing of keys.
SHAPES = [(14, 2, 64), (32, 8, 128), (16, 16, 64)]
CONTEXTS = {
    "1 x 8192": [8192],
    "4 x 4096": [4096] * 4,
    "32 x 200..2000": list(np.random.default_rng(0).integers(200, 2001, 32)),
}
PARTS = ["decode", "prompts", "bounds"]
PROMPTS = {"1 x 1024": [1024], "8 x 128": [128] * 8}


class PagedBatch:
    """Sequences of (contexts, queries) tokens, whose blocks are spread over the caches of one layer."""

    def __init__(self, shape, contexts, queries, *, in_order=False):
        self.query_heads, self.kv_heads, self.head_size = shape
        self.contexts, self.queries = np.array(contexts, np.int32), np.array(queries, np.int32)
        needed = -(-self.contexts // BLOCK_SIZE)
        self.num_blocks = int(needed.sum())
        self.tables = np.full((len(needed), needed.max()), -1, np.int32)
        blocks = np.arange(self.num_blocks, dtype=np.int32)
        if not in_order:
            np.random.default_rng(0).shuffle(blocks)
        for table, end, count in zip(self.tables, needed.cumsum(), needed, strict=True):
            table[:count] = blocks[end - count : end]
        self.query = random_bfloat16(int(self.queries.sum()), self.query_heads * self.head_size)
        self.y = np.empty_like(self.query)
        self.cache_shape = (self.num_blocks, BLOCK_SIZE, self.kv_heads, self.head_size)

    @property
    def token_bytes(self) -> int:
        return 2 * 2 * self.kv_heads * self.head_size

    def attend(self, library: KernelLibrary, key_cache: np.ndarray, value_cache: np.ndarray):
        """A function without arguments, its addresses found beforehand."""
        buffers = (self.query, key_cache, value_cache, self.tables, self.contexts, self.queries, self.y)
        arguments = [buffer.ctypes.data for buffer in buffers]
        arguments += [len(self.query), *self.tables.shape, self.num_blocks, BLOCK_SIZE, self.query_heads]
        arguments += [self.kv_heads, self.head_size, self.head_size**-0.5, DType.BFLOAT16]
        return lambda: library.call("paged_attention", *arguments)


def compare_decode(library: KernelLibrary, shape, name: str, huge_pages: bool, turns: int) -> dict:
    contexts = CONTEXTS[name]
    batch = PagedBatch(shape, contexts, [1] * len(contexts))
    size = int(np.prod(batch.cache_shape))
    memory = array_in_memory(CACHE_ELEMENTS, huge_pages)
    caches = memory[: memory.size // (2 * size) * 2 * size].reshape(-1, 2, *batch.cache_shape)
    layers = [batch.attend(library, *cache) for cache in caches]

    def attend_all():
        for attend in layers:
            attend()

    nbytes = len(layers) * int(batch.contexts.sum()) * batch.token_bytes
    rates, reads = [], []
    for _ in range(turns):
        rates += [nbytes / seconds / 1e9 for seconds in timed(attend_all, 1)]
        reads.append(library.measure_read_bandwidth() / 1e9)
        time.sleep(PAUSE)
    return {
        "heads": "{} / {} x {}".format(*shape),
        "huge_pages": str(huge_pages),
        "contexts": name,
        "mindgen_gbps": statistics.median(rates),
        "read_gbps": statistics.median(reads),
        "ratio": statistics.median(rates) / statistics.median(reads),
    }


def take_apart(library: KernelLibrary, path: Path, in_order: bool, turns: int) -> dict:
    contexts = CONTEXTS["1 x 8192"]
    batch, cached_batch = (PagedBatch(SHAPES[0], contexts, [1], in_order=in_order) for _ in range(2))
    cached_batch.tables %= CACHED_BLOCKS
    with tempfile.TemporaryDirectory() as folder:
        reads = BlockReads(batch, path, library.num_threads, Path(folder))
        times = compare_parts(library, reads, batch, cached_batch, turns)
    blocks = "in order" if in_order else "scattered"
    print_parts(f"bfloat16, {SHAPES[0][0]} / {SHAPES[0][1]} x {SHAPES[0][2]}, 1 x 8192, blocks {blocks}", times)
    return {"blocks": blocks, **times}


def torch_attention(batch: PagedBatch, length: int):
    """Of the same shape; the tokens' order in memory makes no difference."""
    heads = (batch.query_heads, batch.kv_heads, batch.kv_heads)
    count = len(batch.contexts)
    q, k, v = (
        torch.from_numpy(random_bfloat16(count, length, n, batch.head_size).view(np.int16))
        .view(torch.bfloat16)
        .transpose(1, 2)
        for n in heads
    )
    return lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def compare_prompts(library: KernelLibrary, shape, name: str, turns: int) -> dict:
    lengths = PROMPTS[name]
    batch = PagedBatch(shape, lengths, lengths)
    caches = random_bfloat16(2, *batch.cache_shape)
    contenders = {
        "mindgen": batch.attend(library, *caches),
        "limit": lambda: rates.append(library.measure_product_rate(DType.BFLOAT16)),
    }
    if torch is not None:
        contenders["torch"] = torch_attention(batch, lengths[0])
    seconds, rates = {contender: [] for contender in contenders}, []
    for _ in range(turns):
        for contender, function in contenders.items():
            seconds[contender] += timed(function, 1 if contender == "limit" else 5)
    visible = sum(length * (length + 1) // 2 for length in lengths)
    operations = 4 * visible * batch.query_heads * batch.head_size
    result = {"heads": "{} / {} x {}".format(*shape), "prompts": name, "peak_gflops": statistics.median(rates) / 1e9}
    result["mindgen_ms"] = statistics.median(seconds["mindgen"]) * 1e3
    result["mindgen_gflops"] = operations / statistics.median(seconds["mindgen"]) / 1e9
    result["ratio"] = result["mindgen_gflops"] / result["peak_gflops"]
    if torch is not None:
        result["torch_ms"] = statistics.median(seconds["torch"]) * 1e3
        result["speedup"] = result["torch_ms"] / result["mindgen_ms"]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/attention.json"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--library", type=Path, help="default: that of the installed package")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
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
    if "decode" in arguments.only:
        cases = itertools.product(SHAPES, CONTEXTS, (False, True))
        report["decode"] = [compare_decode(library, *case, arguments.turns) for case in cases]
        print_table("bfloat16, one new token per sequence, caches read from memory, medians", report["decode"])
    if "prompts" in arguments.only:
        cases = [(shape, name) for shape in SHAPES for name in PROMPTS]
        report["prompts"] = [compare_prompts(library, *case, arguments.turns) for case in cases]
        print_table("bfloat16, causal attention within whole prompts, medians", report["prompts"])

    if "bounds" in arguments.only:
        report["bounds"] = [take_apart(library, Path(path), in_order, arguments.turns) for in_order in (True, False)]

    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
