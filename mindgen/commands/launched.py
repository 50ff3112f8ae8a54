"""What a command does as one of the processes that a launcher has started: rank 0 of a replica speaks, others serve."""

import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from mindgen.engine import worker
from mindgen.engine.config import EngineConfig
from mindgen.environment import LaunchedRank, launched_rank
from mindgen.errors import ConfigError, UsageError

_LOOK_SECONDS = 0.05


def serve_rank_0() -> int | None:
    """The exit code of a rank above 0, which serves its replica's rank 0 to its end; None where this is none."""
    launched = launched_rank()
    if launched is None or launched.rank == 0:
        return None
    return worker.serve(launched.rendezvous, launched.rank)


def parallel_limits(config: EngineConfig, use_parallel: bool) -> EngineConfig:
    """The engine's limits, on as many ranks as were launched: those that are no pipeline stages share the layers.

    Raises:
        ConfigError: use_parallel says that there are several processes, and nothing else does.
    """
    launched = launched_rank()
    if launched is not None and launched.world_size > 1 and config.tensor_parallel_size == 1:
        return replace(config, tensor_parallel_size=max(1, launched.world_size // config.pipeline_parallel_size))
    if use_parallel and launched is None and config.ranks_per_replica * config.data_parallel_size == 1:
        raise ConfigError("use_parallel: start the command with `mindgen launch`, or say --tp, --pp or --dp as well")
    return config


def own_share(num_prompts: int) -> range:
    """Which of the prompts are this replica's, of those that were launched.

    Raises:
        UsageError: they do not divide among the replicas.
    """
    launched = launched_rank()
    if launched is None:
        return range(num_prompts)
    share, rest = divmod(num_prompts, launched.num_replicas)
    if rest:
        raise UsageError(f"{num_prompts} prompts do not divide among {launched.num_replicas} replicas")
    return range(launched.replica * share, (launched.replica + 1) * share)


def is_first_replica() -> bool:
    """Whether this replica is to print what all of this machine have generated; the only one is."""
    launched = launched_rank()
    return launched is None or launched.replica == _replicas_here(launched)[0]


def hand_over(results: Any) -> None:
    """To the first replica, in the launcher's folder, which only this user may enter."""
    launched = launched_rank()
    assert launched is not None
    path = _results_path(launched, launched.replica)
    unfinished = path.with_suffix(".partial")
    unfinished.write_bytes(pickle.dumps(results))
    unfinished.rename(path)


def handed_over() -> Iterator[Any]:
    """What the others hand over to this first replica, in their order; the launcher ends all if one of them fails."""
    launched = launched_rank()
    if launched is None:
        return
    for replica in _replicas_here(launched)[1:]:
        path = _results_path(launched, replica)
        while not path.is_file():
            time.sleep(_LOOK_SECONDS)
        yield pickle.loads(path.read_bytes())


def _replicas_here(launched: LaunchedRank) -> list[int]:
    """Those of this machine, for which the launcher has made folders."""
    return sorted(int(each.name) for each in launched.rendezvous.parent.iterdir() if each.name.isdecimal())


def _results_path(launched: LaunchedRank, replica: int) -> Path:
    return launched.rendezvous.parent / f"results_{replica}.pickle"
