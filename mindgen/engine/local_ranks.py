"""The ranks of this machine: what they meet through, and what they are told of it."""

import os
from pathlib import Path

from mindgen.checkpoint.weight_files import WeightFiles
from mindgen.engine.worker import RankHost
from mindgen.parallel.workers import Workers


def prepare_ranks(
    workers: Workers,
    ranks: range,
    memory: int,
    sockets: tuple[int, ...],
    weights: WeightFiles,
    adapters: dict[str, Path],
    num_threads: int,
    node: int = 0,
    num_nodes: int = 1,
) -> None:
    """Tells this machine's ranks, but rank 0, which speaks for itself.

    Args:
        memory: a descriptor of what they share.
        sockets: descriptors of the connections with other nodes by node, -1 for this one, for the first of them.
        num_threads: of each.
    """
    for place, rank in enumerate(ranks):
        if rank == 0:
            continue
        workers.send_files(rank, [memory, *(each for each in sockets if place == 0 and each >= 0)])
        host = RankHost(weights, adapters, _cores(place, num_threads), num_threads, node, num_nodes)
        workers.tell_one(rank, "prepare", host)


def threads_per_rank(num_threads: int | None, num_ranks: int) -> int:
    return max(1, (num_threads or len(os.sched_getaffinity(0))) // num_ranks)


def _cores(place: int, num_threads: int) -> list[int] | None:
    """Of their own where a rank has several threads, which the kernels pin to cores."""
    cores = sorted(os.sched_getaffinity(0))
    own = cores[place * num_threads : (place + 1) * num_threads]
    return own if num_threads > 1 and len(own) == num_threads else None
