"""The replicas of this machine: started, and told what it has for them."""

import os
from collections.abc import Mapping

from mindgen.loop.model_files import ModelFiles
from mindgen.loop.replica import ReplicaHost
from mindgen.parallel.node_link import NodeLine
from mindgen.parallel.workers import Workers


def start_replicas(
    numbers: range,
    num_local: int,
    files: ModelFiles,
    num_threads: int | None,
    elsewhere: Mapping[int, NodeLine] | None = None,
) -> Workers:
    """Starts some of the replicas of this machine, and tells them what it has for them.

    Args:
        num_local: all of this machine, which share its cores.
        num_threads: of each; None is its share of the cores.
    """
    workers = Workers.start("replica", "mindgen.loop.replica", numbers, elsewhere)
    cores = sorted(os.sched_getaffinity(0))
    share = len(cores) // num_local
    for number in numbers:
        place = number % num_local
        own = cores[place * share : (place + 1) * share] if share > 1 else None
        workers.tell_one(number, "prepare", ReplicaHost(*files, own, num_threads or max(1, share)))
    return workers
