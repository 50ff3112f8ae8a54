"""What the machine gives at best at this moment, and what it is."""

import os
import platform
import statistics
import time
from pathlib import Path

from mindgen.kernels.library import DType, KernelLibrary
from mindgen.kernels.plugin import library_path
from mindgen.runner.profiling import MachineLimits

_PROC_STAT = Path("/proc/stat")
_PAUSE = 0.05  # the threads of the measurement spin for a while before they sleep


class Machine:
    def __init__(self, threads: int, reads: int) -> None:
        self._reads = reads
        self._library = KernelLibrary(library_path())
        self._library.num_threads = threads

    def measure(self) -> MachineLimits:
        bandwidth = statistics.median(self._library.measure_read_bandwidth() for _ in range(self._reads))
        product_rate = self._library.measure_product_rate(DType.BFLOAT16)
        time.sleep(_PAUSE)
        return MachineLimits(bandwidth, product_rate)


def busy_seconds() -> float:
    """Seconds that the cores have not been idle since the machine started, those taken by the host included."""
    user, nice, system, _, _, interrupt, soft_interrupt, steal = map(int, _PROC_STAT.read_text().split()[1:9])
    return (user + nice + system + interrupt + soft_interrupt + steal) / os.sysconf("SC_CLK_TCK")


def processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()
