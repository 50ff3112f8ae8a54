"""The replicas of this machine: started, and told what it has for them."""

from collections.abc import Mapping

from mindgen.loop.model_files import ModelFiles
from mindgen.loop.replica import ReplicaHost
from mindgen.parallel.node_link import NodeLine
from mindgen.parallel.worker_pool import WorkerPool
from mindgen.system.cores import core_shares, threads_per_share


def start_replicas(
    numbers: range,
    num_local: int,
    files: ModelFiles,
    num_threads: int | None,
    elsewhere: Mapping[int, NodeLine] | None = None,
) -> WorkerPool:
    """Starts some of the replicas of this machine, and tells them what it has for them.

    Args:
        num_local: all of this machine, which share its cores.
        num_threads: of each; None is its share of the cores.
    """
    workers = WorkerPool.start("replica", "mindgen.loop.replica", numbers, elsewhere)
    shares, threads = core_shares(num_local), num_threads or threads_per_share(None, num_local)
    for number in numbers:
        own = shares[number % num_local]
        pinned = own if own is not None and len(own) > 1 else None  # a single core is left to the system to choose
        workers.tell_one(number, "prepare", ReplicaHost(*files, pinned, threads))
    return workers
