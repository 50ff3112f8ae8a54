"""The replicas of this machine: started here or by a launcher, and told what the machine has for them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mindgen.engine.engine_config import EngineConfig
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.replica import ReplicaHost
from mindgen.parallel.node_connection import WorkerLine
from mindgen.parallel.other_nodes import OtherNodes
from mindgen.parallel.worker_pool import WorkerPool
from mindgen.system.cores import core_shares, threads_per_share
from mindgen.system.environment import LaunchedRank, launched_rank


def local_numbers(config: EngineConfig, nodes: OtherNodes | None) -> range:
    """Of the replicas that the configuration wants, those of this machine, this process's own first."""
    if nodes is not None:
        return nodes.placement.workers(0)
    launched = _launched_replica()
    if launched is None:
        return range(config.data_parallel_size)
    return launched.local_replicas()[: config.data_parallel_size]


def replica_config(config: EngineConfig, num_local: int) -> EngineConfig:
    """The limits of each replica: those of a machine share its threads and, where it is a share, the free memory."""
    memory, threads = config.memory_utilization, config.num_threads
    return replace(
        config,
        data_parallel_size=1,
        nnodes=1,
        node_rank=0,
        num_threads=threads_per_share(threads, num_local) if _launched_replica() is None else threads,
        memory_utilization=memory if isinstance(memory, str) else memory / num_local,
    )


def open_replicas(
    local: range, files: ModelFiles, num_threads: int | None, elsewhere: Mapping[int, WorkerLine] | None
) -> WorkerPool:
    """All but the first of this machine's, which is this process's own, and those of other machines."""
    launched = _launched_replica()
    if launched is None:
        return start_replicas(local[1:], len(local), files, num_threads, elsewhere)
    workers = WorkerPool.await_launched("replica", local[1:], launched.rendezvous.parent)
    for number in local[1:]:  # the launcher has given each its cores
        workers.tell_one(number, "prepare", ReplicaHost(*files, None, num_threads))
    return workers


def start_replicas(
    numbers: Sequence[int],
    num_local: int,
    files: ModelFiles,
    num_threads: int | None,
    elsewhere: Mapping[int, WorkerLine] | None = None,
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


def is_launched() -> bool:
    """Whether a launcher has started the replicas, and not this process."""
    return _launched_replica() is not None


def _launched_replica() -> LaunchedRank | None:
    """Where a launcher has started several replicas: this process's."""
    launched = launched_rank()
    return launched if launched is not None and launched.num_replicas > 1 else None
