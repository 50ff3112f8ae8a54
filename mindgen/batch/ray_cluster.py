"""The Ray cluster that replicas of the model have their places in."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError


@contextmanager
def cluster() -> Iterator[Any]:
    """The one that this process has joined, that RAY_ADDRESS names, or of this machine alone."""
    try:
        import ray
    except ImportError:
        raise ConfigError("runner ray needs Ray: pip install 'mindgen[ray]'") from None
    is_joined = ray.is_initialized()
    if not is_joined:
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"there is no Ray cluster to join: {one_line(error)}") from error
    try:
        yield ray
    finally:
        if not is_joined:
            ray.shutdown()


def replica_needs(engine: EngineConfig, machines: list[dict[str, float]]) -> dict[str, int]:
    """What a replica needs of its machine, by the names of Ray's resources.

    Raises:
        ConfigError: no machine has it.
    """
    needs = {"CPU": engine.num_threads or engine.ranks_per_replica}
    has_npus = any(machine.get("NPU") for machine in machines)
    if engine.device_target == "Ascend" or (engine.device_target == "auto" and has_npus):
        if engine.ranks_per_replica > 1:
            raise ConfigError(
                "runner ray has one NPU for each replica: set engine.tensor_parallel_size and pipeline_parallel_size "
                "to 1, or share a job among machines with engine.nnodes"
            )
        needs["NPU"] = 1
    if not any(all(machine.get(name, 0) >= count for name, count in needs.items()) for machine in machines):
        largest = {name: max(machine.get(name, 0) for machine in machines) for name in needs}
        raise ConfigError(
            f"no machine of the Ray cluster is large enough for a replica, which needs {needs}: the most that one has "
            f"is {largest}"
        )
    return needs


def one_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
