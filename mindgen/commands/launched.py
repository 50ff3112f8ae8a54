"""What a command does as one of the processes that a launcher has started: rank 0 of a replica speaks, others serve."""

from dataclasses import replace

from mindgen.engine.config import EngineConfig
from mindgen.environment import launched_rank
from mindgen.errors import ConfigError, UsageError
from mindgen.parallel import worker


def serve_rank_0() -> int | None:
    """The exit code of a rank above 0, which serves its replica's rank 0 to its end; None where this is none."""
    launched = launched_rank()
    if launched is None or launched.rank == 0:
        return None
    return worker.serve(launched.rendezvous, launched.rank)


def parallel_limits(config: EngineConfig, use_parallel: bool) -> EngineConfig:
    """The engine's limits, on as many ranks as were launched.

    Raises:
        ConfigError: use_parallel says that there are several processes, and nothing else does.
    """
    launched = launched_rank()
    if launched is not None and launched.world_size > 1 and config.tensor_parallel_size == 1:
        return replace(config, tensor_parallel_size=launched.world_size)
    if use_parallel and launched is None and config.tensor_parallel_size == config.data_parallel_size == 1:
        raise ConfigError("use_parallel: start the command with `mindgen launch`, or say --tp or --dp as well")
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
