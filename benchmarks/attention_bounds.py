"""What holds decode attention up: its parts alone, and the whole, in turns.

A layer's keys and values are read cold (all layers in turn, alone or between a step's matrix products) by attention
and by a loop that only reads them: the same blocks, order, threads and prefetches. Attention to blocks that the first
cache holds is arithmetic alone.
"""

import ctypes
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from decoder import LAYERS, Decoder, array_in_memory, run

from mindgen.kernels.library import DType, KernelLibrary

_SOURCE = Path(__file__).with_name("block_reads.cc")
_HEADERS = Path(__file__).parents[1] / "mindgen" / "kernels" / "csrc" / "runtime"
CACHED_BLOCKS = 2  # of keys and of values: with the scores, the first cache holds them
_TASKS = 16  # into which attention cuts 8,192 keys
_PAUSE = 0.003

Calls = list[Callable[[], object]]  # one of each layer


class BlockReads:
    """The reading of a batch's blocks alone, by the threads of the kernel library."""

    def __init__(self, batch, library_path: Path, threads: int, folder: Path) -> None:
        _, block_size, self._num_heads, head_size = batch.cache_shape
        sizes = [f"-DBLOCK_SIZE={block_size}", f"-DHEAD_BYTES={2 * head_size}"]
        path = folder / "block_reads.so"
        command = ["g++", "-std=gnu++17", "-O3", "-march=native", "-shared", "-fPIC", f"-I{_HEADERS}", str(_SOURCE)]
        subprocess.run([*command, *sizes, "-o", path, library_path, f"-Wl,-rpath,{library_path.parent}"], check=True)
        self._library = ctypes.CDLL(str(path))
        self._library.read_blocks.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64] * 2 + [ctypes.c_int]
        self._library.do_nothing.argtypes = [ctypes.c_int64, ctypes.c_int]
        self._threads = threads

    def read(self, batch, key_cache: np.ndarray, value_cache: np.ndarray) -> Callable[[], object]:
        addresses = [array.ctypes.data for array in (key_cache, value_cache, batch.tables)]
        arguments = (*addresses, batch.num_blocks, self._num_heads, self._threads)
        return lambda: self._library.read_blocks(*arguments)

    def do_nothing(self) -> None:
        self._library.do_nothing(_TASKS, self._threads)


def compare_parts(library: KernelLibrary, reads: BlockReads, batch, cached_batch, turns: int) -> dict:
    """Microseconds of a layer's attention and of its parts; cached_batch is batch with few different blocks."""
    caches = array_in_memory(LAYERS * 2 * int(np.prod(batch.cache_shape)), huge_pages=False)
    layers = caches.reshape(LAYERS, 2, *batch.cache_shape)
    attention: Calls = [batch.attend(library, *cache) for cache in layers]
    reading: Calls = [reads.read(batch, *cache) for cache in layers]
    products = Decoder(huge_pages=False).calls(library, 1, DType.BFLOAT16)
    contenders = {
        "nothing": lambda: _seconds([reads.do_nothing] * LAYERS),
        "arithmetic": lambda: _seconds([cached_batch.attend(library, *layers[0])] * LAYERS),
        "reads": lambda: _seconds(reading),
        "attention": lambda: _seconds(attention),
        "reads_in_step": lambda: _seconds(reading, products),
        "attention_in_step": lambda: _seconds(attention, products),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    bandwidths, rates = [], []
    for _ in range(turns):
        for name, measure in contenders.items():
            seconds[name].append(measure())
            time.sleep(_PAUSE)
        bandwidths.append(library.measure_read_bandwidth())
        rates.append(library.measure_product_rate(DType.BFLOAT16))
    operations = 4 * int(batch.contexts.sum()) * batch.query_heads * batch.head_size
    times = {name: statistics.median(values) * 1e6 for name, values in seconds.items()}
    times["bytes_at_bandwidth"] = int(batch.contexts.sum()) * batch.token_bytes / statistics.median(bandwidths) * 1e6
    times["operations_at_rate"] = operations / statistics.median(rates) * 1e6
    return times | {
        "read_gbps": statistics.median(bandwidths) / 1e9,
        "product_gflops": statistics.median(rates) / 1e9,
    }


def _seconds(calls: Calls, products: list | None = None) -> float:
    """The median layer's, with a step's products before and after each when given."""
    seconds = []
    for layer, call in enumerate(calls):
        if products:
            run(products[4 * layer : 4 * layer + 1])
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
        if products:
            run(products[4 * layer + 1 : 4 * layer + 4])
    return statistics.median(seconds)


def print_parts(title: str, times: dict) -> None:
    bound = times["bytes_at_bandwidth"]
    print(f"\n{title}")
    print(f"{'a layer':64}{'us':>8}{'bound / time':>14}")
    for label, us in [
        (f"bound: its bytes at the read bandwidth, {times['read_gbps']:.1f} GB/s", bound),
        (f"its operations at the product rate, {times['product_gflops']:.0f} GFLOPS", times["operations_at_rate"]),
        ("handing out tasks that do nothing", times["nothing"]),
        ("attention to blocks in the first cache: arithmetic alone", times["arithmetic"]),
        ("reads alone, cold", times["reads"]),
        ("attention, cold", times["attention"]),
        ("reads alone, within a step", times["reads_in_step"]),
        ("attention, within a step", times["attention_in_step"]),
    ]:
        print(f"{label:64}{us:8.1f}{bound / us:14.2f}")
    for place, reads, attention in [
        ("cold", times["reads"], times["attention"]),
        ("within a step", times["reads_in_step"], times["attention_in_step"]),
    ]:
        best, worst = max(reads, times["arithmetic"]), reads + times["arithmetic"]
        hidden = max(0, worst - attention) / (worst - best)
        print(f"{place}: bound / time is {bound / best:.2f} with all of the arithmetic or the reads behind the other, "
              f"{bound / worst:.2f} with nothing; {min(1, hidden):.0%} of the shorter one hides")  # fmt: skip
