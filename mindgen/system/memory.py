"""How much memory there is, and sizes as people write them."""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mindgen.errors import ConfigError

_UNITS = {"": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "kb": 10**3, "mb": 10**6, "gb": 10**9}


def parse_size(text: str) -> int:
    """Bytes of a size like "4GiB", "512 MB" or "1048576".

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ConfigError(f"expected a share up to 1, or a size like 4GiB, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def free_memory() -> int:
    """Bytes that this process may still take: MemAvailable, or what the system has free."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def sparing_collector() -> Iterator[None]:
    """Python's collector of garbage does not look at what is there now until this is left: each of its rounds would
    take as long as the objects of a loaded model are many."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
