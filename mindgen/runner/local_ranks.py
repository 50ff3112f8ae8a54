"""The ranks of this machine: what they meet through, and what they are told of it."""

from collections.abc import Callable
from dataclasses import replace

from mindgen.parallel.worker_pool import WorkerPool
from mindgen.runner.spec import RankHost
from mindgen.system.cores import usable_cores


def prepare_ranks(
    workers: WorkerPool, ranks: range, files: Callable[[int], list[int]], host: RankHost, num_sharing: int
) -> None:
    """Tells this machine's ranks, but rank 0, which speaks for itself.

    Args:
        files: descriptors of what each meets the others through.
        host: of each, but for the cores.
        num_sharing: consecutive ranks that work at the same time, and share the cores.
    """
    for rank in ranks:
        workers.send_files(rank, files(rank))
        own = replace(host, cores=_cores(rank % num_sharing, host.num_threads))
        workers.tell_one(rank, "prepare", own)


def _cores(place: int, num_threads: int) -> list[int] | None:
    """Of their own where a rank has several threads, which the kernels pin to cores."""
    cores = usable_cores()
    own = cores[place * num_threads : (place + 1) * num_threads]
    return own if num_threads > 1 and len(own) == num_threads else None
