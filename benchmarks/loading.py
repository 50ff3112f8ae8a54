"""How long a model's weights take from their file to where the network has them, against reading the same bytes.

    python benchmarks/loading.py [--turns 5] [--threads 2] [--megabytes 1000] [--cold] [--folder FOLDER]

Each measurement has a process of its own, in turns. One reads the file into new memory, with as many threads as mindgen
uses. One reads it and writes as many bytes of new memory as the weights take: nearly twice as many for Q8_0, which is
unpacked into bfloat16. And one has mindgen load it, from the opened folder on, imports aside; weights that stay in the
mapped file are then looked at, a byte of each page, so that nothing is left to be read later. All begin with the file
in the system's cache, or with `--cold` without it.

The peak is that of the whole process, with MindSpore and all else that is imported, less the bytes of the weights.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from random_llama import make_gguf, make_safetensors

from mindgen.kernels import plugin
from mindgen.layers.parameters import WeightSource
from mindgen.layers.spec import NetworkSpec
from mindgen.models.registry import build_network
from mindgen.weights.architecture import read_model_config
from mindgen.weights.cache_layout import CacheShape
from mindgen.weights.weight_files import find_weights

_PIECE_BYTES = 16 << 20
_MAKERS = {"safetensors": make_safetensors, "GGUF Q8_0": make_gguf}
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of one process; what it has read or loaded takes memory_bytes."""

    seconds: float
    memory_bytes: int
    peak_bytes: int


def read_bytes(file: Path, threads: int) -> Measurement:
    """All of the file into new memory."""
    return _write_bytes(file, threads, file.stat().st_size)


def move_bytes(file: Path, threads: int) -> Measurement:
    """All of the file into new memory, and as much behind it as the weights take more."""
    return _write_bytes(
        file, threads, max(file.stat().st_size, find_weights(file.parent, None, 1).num_bytes("bfloat16"))
    )


def _write_bytes(file: Path, threads: int, num_bytes: int) -> Measurement:
    started = time.perf_counter()
    memory = np.empty(num_bytes, np.uint8)
    size = file.stat().st_size
    with file.open("rb") as opened, ThreadPoolExecutor(threads) as pool:

        def write(start: int) -> None:
            end = min(start + _PIECE_BYTES, num_bytes)
            while start < min(end, size):
                start += os.preadv(opened.fileno(), [memory[start : min(end, size)]], start)
            memory[start:end] = 1

        list(pool.map(write, range(0, num_bytes, _PIECE_BYTES)))
    return Measurement(time.perf_counter() - started, num_bytes, _peak_bytes())


def load_weights(file: Path, threads: int) -> Measurement:
    """As a runner does."""
    kernels = plugin.load()
    kernels.num_threads = threads
    config = read_model_config(file.parent)
    network = build_network(NetworkSpec(config, CacheShape(num_blocks=2, block_size=16), 2049, "bfloat16"))
    started = time.perf_counter()
    source = WeightSource(network.translate(find_weights(file.parent, None, 1).map(0)), "bfloat16")
    assert not network.load(source)
    for weight in source.taken.values():
        weight.memory.reshape(-1).view(np.uint8)[::_PAGE_BYTES].max()
    seconds = time.perf_counter() - started
    return Measurement(seconds, sum(each.num_bytes for each in source.taken.values()), _peak_bytes())


_MEASUREMENTS = {"read": read_bytes, "move": move_bytes, "load": load_weights}


def _peak_bytes() -> int:
    """The most memory that this process has had."""
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) << 10


def _measure(kind: str, file: Path, threads: int, is_cold: bool) -> Measurement:
    """In a process of its own, with the file in the system's cache, or not."""
    with file.open("rb") as opened:
        if is_cold:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        else:
            while opened.read(_PIECE_BYTES):
                pass
    command = [sys.executable, __file__, "--only", kind, str(file), "--threads", str(threads)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, encoding="utf-8")
    return Measurement(**json.loads(done.stdout.splitlines()[-1]))


def _report(name: str, turns: list[dict[str, Measurement]]) -> dict:
    read, load = turns[0]["read"], turns[0]["load"]
    seconds = [statistics.median(turn[kind].seconds for turn in turns) for kind in _MEASUREMENTS]
    beside = max(turn["load"].peak_bytes - turn["load"].memory_bytes for turn in turns)
    print(
        f"{name:<12}{read.memory_bytes / 1e6:8.0f}{load.memory_bytes / 1e6:11.0f}"
        + "".join(f"{each:8.2f}" for each in seconds)
        + "".join(f"{_ratio(turns, kind):>22}" for kind in ("read", "move"))
        + f"{beside / 1e6:10.0f}",
        flush=True,
    )
    return {"checkpoint": name, "turns": [{kind: asdict(each) for kind, each in turn.items()} for turn in turns]}


def _ratio(turns: list[dict[str, Measurement]], kind: str) -> str:
    """Of loading to another measurement of the same turn: the median, the least and the most."""
    ratios = [turn["load"].seconds / turn[kind].seconds for turn in turns]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--megabytes", type=int, default=1000, help="of each file, about")
    parser.add_argument("--cold", action="store_true", help="files are read from the disk")
    parser.add_argument("--folder", type=Path, help="where the checkpoints are kept; else a temporary folder")
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/loading.json"))
    parser.add_argument("--only", nargs=2, metavar=("KIND", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        kind, file = arguments.only
        print(json.dumps(asdict(_MEASUREMENTS[kind](Path(file), arguments.threads))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        print(
            f"{'':<12}{'file MB':>8}{'memory MB':>11}{'read s':>8}{'move s':>8}{'load s':>8}{'load / read':>22}"
            f"{'load / move':>22}{'peak MB':>10}"
        )
        rows = []
        for name, make in _MAKERS.items():
            file = make(folder / name.replace(" ", "-").lower(), arguments.megabytes * 10**6)
            turns = [
                {kind: _measure(kind, file, arguments.threads, arguments.cold) for kind in _MEASUREMENTS}
                for _ in range(arguments.turns)
            ]
            rows.append(_report(name, turns))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
