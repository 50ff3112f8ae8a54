"""What a command does as one of the processes that a launcher has started, which share a model or have one each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindgen.config import Settings
from mindgen.engine.config import EngineConfig
from mindgen.errors import ConfigError
from mindgen.loop.node import verdict
from mindgen.parallel.encoding import decode, encode
from mindgen.parallel.shares import even_shares
from mindgen.system.atomic import whole_file
from mindgen.system.environment import LaunchedRank, launched_rank

if TYPE_CHECKING:
    from mindgen.llm import LLM

_LOOK_SECONDS = 0.05


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
        return replace(config, tensor_parallel_size=size, data_parallel_size=1)

    def share(self, num_prompts: int) -> range:
        """Which of the prompts are this replica's."""
        if self.launched is None:
            return range(num_prompts)
        return even_shares(num_prompts, self.launched.num_replicas)[self.launched.replica]

    def first_here(self, num_prompts: int) -> int:
        """The first of the prompts of this machine."""
        if self.launched is None:
            return 0
        return even_shares(num_prompts, self.launched.num_replicas)[self._replicas_here()[0]].start

    @property
    def prints(self) -> bool:
        """Whether this replica is to print what all of this machine have generated; the only one is."""
        return self.launched is None or self.launched.replica == self._replicas_here()[0]

    def hand_over(self, results: Any) -> None:
        """To the replica that prints, in the launcher's folder, which only this user may enter."""
        assert self.launched is not None
        path = self._results_path(self.launched.replica)
        with whole_file(path) as unfinished:
            unfinished.write_bytes(encode(results))

    def handed_over(self, kind: Any, num_prompts: int) -> Iterator[Any]:
        """What the others that have prompts hand over, of this type, in order; the launcher ends all if one fails."""
        if self.launched is None:
            return
        shares = even_shares(num_prompts, self.launched.num_replicas)
        for replica in self._replicas_here()[1:]:
            if not shares[replica]:
                continue
            path = self._results_path(replica)
            while not path.is_file():
                time.sleep(_LOOK_SECONDS)
            yield decode(path.read_bytes(), kind)

    def _replicas_here(self) -> list[int]:
        """Those of this machine, for which the launcher has made folders."""
        assert self.launched is not None
        return sorted(int(each.name) for each in self.launched.rendezvous.parent.iterdir() if each.name.isdecimal())

    def _results_path(self, replica: int) -> Path:
        assert self.launched is not None
        return self.launched.rendezvous.parent / f"results_{replica}.message"


def take_part(settings: Settings) -> tuple[Part, Settings]:
    """This process's part, and the settings with the limits for it.

    Raises:
        ConfigError: use_parallel says that there are several processes, and nothing else does; or as Part.limits.
    """
    part, config = Part.of(settings.engine, settings.use_parallel), settings.engine
    if settings.use_parallel and part.launched is None and config.ranks_per_replica * config.data_parallel_size == 1:
        raise ConfigError("use_parallel: start the command with `mindgen launch`, or say --tp, --pp or --dp as well")
    return part, settings.model_copy(update={"engine": part.limits(config)})


@contextmanager
def closing(llm: "LLM") -> Iterator[None]:
    """Ends what works for it when an error comes, and has other machines told."""
    try:
        yield
    except BaseException as error:
        llm.close(*verdict(error))
        raise
