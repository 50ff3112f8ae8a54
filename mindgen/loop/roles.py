"""The part of this process in a job of several: it has the prompts, or it serves the process that has them."""

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop import replica
from mindgen.loop.model_files import ModelFiles
from mindgen.loop.node_service import serve_node
from mindgen.runner.rank_process import serve_launched
from mindgen.system import environment


def serve_if_worker(files: ModelFiles, config: EngineConfig) -> int | None:
    """Where this process works for the one with the prompts, serves that to its end, and returns the exit code; else
    None. It does as a launched rank above 0, a launched replica after its machine's first, or a node_rank above 0.

    Raises:
        ConfigError: several NPUs are wanted, and no launcher has started this process.
        MindgenError: whatever has ended the one with the prompts, or this process.
    """
    check_launched(config)
    code = serve_launched(config.ranks_per_replica)
    if code is not None:
        return code
    launched = environment.launched_rank()
    if launched is not None and config.data_parallel_size > 1 and launched.replica > launched.local_replicas()[0]:
        return replica.serve(launched.rendezvous.parent, launched.replica)
    if config.node_rank > 0:
        serve_node(files, config)
        return 0
    return None


def check_launched(config: EngineConfig) -> None:
    """Several NPUs are several processes of a launcher's, with a communication group of MindSpore's.

    Raises:
        ConfigError: they are wanted, and no launcher has started this process; or several pipeline stages are.
    """
    num_ranks = config.ranks_per_replica * config.data_parallel_size
    if num_ranks == 1 or config.device_target == "CPU":
        return
    from mindgen.runner.device import choose_device  # starts MindSpore, which mistakes in flags need not wait for

    if choose_device(config.device_target) == "CPU":
        return
    if config.pipeline_parallel_size > 1:
        raise ConfigError("engine: pipeline_parallel_size is served on the CPU only: on Ascend set it to 1")
    launched = environment.launched_rank()
    if launched is None or launched.world_size * launched.num_replicas == 1:
        replicas = f" --data_parallel {config.data_parallel_size}" if config.data_parallel_size > 1 else ""
        raise ConfigError(
            f"engine: on Ascend, `mindgen launch --ranks {num_ranks}{replicas} -- COMMAND` starts the {num_ranks} ranks"
        )
