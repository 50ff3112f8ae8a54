"""How fast weights of another process come to serve: all of the base model's, and an adapter's beside running requests.

    python benchmarks/weight_sync.py [--shape qwen2.5-0.5b] [--turns 5] [--rank 16] [--json PATH]

The sender is a process of its own, and its clock counts, from the first tensor until the report is there. The base
model comes while nothing runs; memcpy copies as many bytes within one process, with one thread.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from random_model import make_adapter, make_model

from mindgen import LLM, SamplingParams
from mindgen.rlhf import WeightReceiver, WeightSender
from mindgen.weights.weight_format import map_file

RUNNING, PROMPT_LEN, NUM_COPIED = 8, 32, 256 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--shape", default="qwen2.5-0.5b")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--json", type=Path, default=Path("output/benchmarks/weight_sync.json"))
    parser.add_argument("--send", nargs=3, metavar=("SOCKET", "TENSORS", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.send:
        send(*arguments.send, arguments.turns)
        return
    folder = arguments.folder or Path("output/benchmarks") / arguments.shape
    make_model(folder, arguments.shape)
    adapter = folder / "contents" / f"rank-{arguments.rank}-0"
    make_adapter(adapter, folder, arguments.rank, 0)
    report = measure(folder, adapter, arguments.turns)
    print(
        f"base: {report['base_bytes'] / 2**20:.0f} MiB, {report['transfer_gb_per_second']:.2f} GB/s through shared "
        f"memory ({report['transfer_share_of_memcpy']:.2f} of memcpy's {report['memcpy_gb_per_second']:.2f}), "
        f"{report['base_gb_per_second']:.2f} until they serve ({report['share_of_memcpy']:.2f})\n"
        f"adapter of rank {arguments.rank}: {report['adapter_bytes'] / 2**20:.1f} MiB in "
        f"{report['adapter_ms']:.1f} ms (median), {report['adapter_quiet_ms']:.1f} ms with nothing running; "
        f"a decode step of {RUNNING} requests: {report['step_ms']:.1f} ms, {report['step_ms_syncing']:.1f} ms meanwhile"
    )
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def send(socket: str, file: str, target: str, turns: int) -> None:
    """In the other process: as often as asked, each time with other content; prints seconds and bytes of each."""
    tensors = {name: (each.dtype, np.array(each.data)) for name, each in map_file(Path(file)).items()}
    config = Path(file).parent / "adapter_config.json"
    options = {} if target == "base" else {"adapter_config": json.loads(config.read_text())}
    with WeightSender(socket) as sender:
        for _ in range(turns + 1):
            for _, bits in tensors.values():
                bits.reshape(-1)[0] ^= 1
            started = time.perf_counter()
            report = sender.send(tensors, target, expect_change=False, **options)
            seconds = time.perf_counter() - started
            print(json.dumps([seconds, report["transfer_seconds"], report["bytes_received"]]), flush=True)


def measure(folder: Path, adapter: Path, turns: int) -> dict:
    llm = LLM(folder, max_model_len=1024, max_num_seqs=RUNNING + 1)
    with tempfile.TemporaryDirectory() as place, WeightReceiver(llm, Path(place) / "socket"):
        socket, file = Path(place) / "socket", adapter / "adapter_model.safetensors"
        copied = memcpy()
        base = sync(socket, folder / "model.safetensors", "base", turns)
        quiet = sync(socket, file, "A", turns)
        steps, meanwhile = running_steps(llm, lambda: sync(socket, file, "A", turns))
        busy, syncing = meanwhile
    llm.close()
    seconds, moved, num_bytes = base
    rate, moving = (num_bytes / statistics.median(each) / 1e9 for each in (seconds, moved))
    return {
        "base_seconds": seconds,
        "transfer_gb_per_second": moving,
        "transfer_share_of_memcpy": moving / copied,
        "base_bytes": num_bytes,
        "base_gb_per_second": rate,
        "memcpy_gb_per_second": copied,
        "share_of_memcpy": rate / copied,
        "adapter_bytes": busy[2],
        "adapter_seconds": busy[0],
        "adapter_ms": statistics.median(busy[0]) * 1e3,
        "adapter_quiet_ms": statistics.median(quiet[0]) * 1e3,
        "step_ms": statistics.median(steps) * 1e3,
        "step_ms_syncing": statistics.median(syncing) * 1e3,
    }


def sync(socket: Path, file: Path, target: str, turns: int) -> tuple[list[float], list[float], int]:
    """Of each update but the first, which takes memory: seconds until it serves, and of its way through shared memory;
    and the bytes of one."""
    command = [sys.executable, __file__, "--send", str(socket), str(file), target, "--turns", str(turns)]
    written = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = [json.loads(line) for line in written.splitlines()]
    served, moved, sizes = zip(*found, strict=True)
    return list(served[1:]), list(moved[1:]), sizes[0]


def running_steps(llm: LLM, work) -> tuple[list[float], tuple]:
    """Seconds of decode steps, first with nothing else and then during the work, and what this gives."""
    prompts = [[5 + place] * PROMPT_LEN for place in range(RUNNING)]
    stream = llm.stream(prompts, SamplingParams(temperature=0, max_tokens=900, ignore_eos=True))
    stream.advance()
    quiet = [step(stream) for _ in range(12)]
    found: list = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    syncing = []
    while thread.is_alive() and stream.is_open:
        syncing.append(step(stream))
    thread.join()
    stream.close()
    return quiet, (found[0], syncing)


def step(stream) -> float:
    started = time.perf_counter()
    stream.advance()
    return time.perf_counter() - started


def memcpy() -> float:
    """GB/s, the best of five."""
    source = np.random.default_rng(0).integers(0, 255, NUM_COPIED, np.uint8)
    target = np.zeros_like(source)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        target[:] = source
        times.append(time.perf_counter() - started)
    return NUM_COPIED / min(times) / 1e9


if __name__ == "__main__":
    main()
