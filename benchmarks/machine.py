"""What the machine gives at best at this moment, and what it is."""

import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matmul import load_limits

from mindgen.kernels.library import KernelLibrary
from mindgen.kernels.plugin import library_path

_READ_BYTES = 384 << 20  # more than any cache holds
_READS = 3
_PRODUCT_ROUNDS = 5_000_000
_PROC_STAT = Path("/proc/stat")
_PAUSE = 0.05  # the threads of the measurement spin for a while before they sleep


@dataclass(frozen=True)
class MachineLimits:
    """Bytes read per second, and bfloat16 operations per second (0 where no instruction multiplies bfloat16)."""

    read_bandwidth: float
    product_rate: float


class Machine:
    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._data = np.ones(_READ_BYTES, np.uint8)
        self._library = load_limits(KernelLibrary(library_path()).best_instruction_set)

    def measure(self) -> MachineLimits:
        address = self._data.ctypes.data
        reads = [self._library.read_bandwidth(address, _READ_BYTES, self._threads) for _ in range(_READS)]
        product_rate = self._library.product_rate(self._threads, _PRODUCT_ROUNDS)
        time.sleep(_PAUSE)
        return MachineLimits(statistics.median(reads), product_rate)


def busy_seconds() -> float:
    """Seconds that the cores have not been idle since the machine started, those taken by the host included."""
    user, nice, system, _, _, interrupt, soft_interrupt, steal = map(int, _PROC_STAT.read_text().split()[1:9])
    return (user + nice + system + interrupt + soft_interrupt + steal) / os.sysconf("SC_CLK_TCK")


def processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
