"""What a command does as one of the processes that a launcher has started, which share a model or have one each."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop.node_service import verdict
from mindgen.parallel.shares import even_shares
from mindgen.settings import SettingsKind
from mindgen.system.environment import LaunchedRank, launched_rank

if TYPE_CHECKING:
    from mindgen.llm import LLM


@dataclass(frozen=True, slots=True)
class Part:
    """This process's part of a command's work.

    Attributes:
        launched: which it is of the ranks that share the work; None where it does all of it with a model of its own.
        writes_files: false where others do the same, and the first of them writes.
    """

    launched: LaunchedRank | None
    writes_files: bool = True

    @classmethod
    def of(cls, config: EngineConfig, use_parallel: bool) -> "Part":
        """Ranks share where the command or the launcher says so: use_parallel, several devices, several replicas."""
        launched = launched_rank()
        if launched is None:
            return cls(None)
        devices = config.ranks_per_replica * config.data_parallel_size
        if use_parallel or devices > 1 or launched.num_replicas > 1:
            return cls(launched)
        return cls(None, writes_files=launched.rank == 0)

    def limits(self, config: EngineConfig) -> EngineConfig:
        """The engine's, on as many ranks as were launched: those that are no pipeline stages share the layers.

        Raises:
            ConfigError: the launcher has started another number of replicas.
        """
        if self.launched is None:
            return config
        replicas, launched = config.data_parallel_size, self.launched
        if replicas not in (1, launched.num_replicas):
            raise ConfigError(
                f"engine: data_parallel_size is {replicas}, and the launcher has made {launched.num_replicas} "
                f"replica(s): tell it --data_parallel {replicas} as well"
            )
        size = config.tensor_parallel_size
        if size == 1:
            size = max(1, launched.world_size // config.pipeline_parallel_size)
        return replace(config, tensor_parallel_size=size, data_parallel_size=len(launched.local_replicas()))

    def share(self, num_prompts: int) -> range:
        """Which of the prompts are this machine's; its first replica gives them to all."""
        if self.launched is None:
            return range(num_prompts)
        shares, here = even_shares(num_prompts, self.launched.num_replicas), self.launched.local_replicas()
        return range(shares[here[0]].start, shares[here[-1]].stop)

    def busy(self, settings: SettingsKind, num_prompts: int) -> SettingsKind | None:
        """The settings without the replicas of this machine that have no prompt; None where this process is of one."""
        if self.launched is None:
            return settings
        here = self.launched.local_replicas()
        num_busy = min(len(here), len(self.share(num_prompts)))
        if self.launched.replica not in here[:num_busy]:
            return None
        return with_engine(settings, replace(settings.engine, data_parallel_size=num_busy))


def take_part(settings: SettingsKind) -> tuple[Part, SettingsKind]:
    """This process's part, and the settings with the limits for it.

    Raises:
        ConfigError: use_parallel says that there are several processes, and nothing else does; or as Part.limits.
    """
    part, config = Part.of(settings.engine, settings.use_parallel), settings.engine
    if settings.use_parallel and part.launched is None and config.ranks_per_replica * config.data_parallel_size == 1:
        raise ConfigError("use_parallel: start the command with `mindgen launch`, or say --tp, --pp or --dp as well")
    return part, with_engine(settings, part.limits(config))


def with_engine(settings: SettingsKind, config: EngineConfig) -> SettingsKind:
    return settings.model_copy(update={"engine": config})


@contextmanager
def closing(llm: "LLM") -> Iterator[None]:
    """Ends what works for it when an error comes, and has other machines told."""
    try:
        yield
    except BaseException as error:
        llm.close(*verdict(error))
        raise
