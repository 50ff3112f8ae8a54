"""How much memory there is, sizes as people write them, and memory that is given back."""

import ctypes
import gc
import mmap
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

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


def keep_heap() -> None:
    """Has the garbage collector pass over all objects of now, for a process that keeps its model to its end.

    MindSpore's alone take a tenth of a second at each full collection, in which nothing else runs.
    """
    gc.collect()
    gc.freeze()


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


def drop_pages(array: np.ndarray) -> None:
    """Gives the memory of an array in one piece back to the system, with what is in it: zeros where it has been taken
    anew when somebody looks; a mapped file's content, which is read anew.

    Raises:
        OSError: the system refuses.
    """
    start = array.__array_interface__["data"][0]
    first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (start + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE - first
    if length <= 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED):
        raise OSError(ctypes.get_errno(), "the system does not take memory back")
