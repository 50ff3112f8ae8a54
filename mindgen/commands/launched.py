"""What a command does as one of the processes that a launcher has started: rank 0 of a replica speaks, others serve."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from mindgen.engine import worker
from mindgen.engine.config import EngineConfig
from mindgen.environment import launched_rank
from mindgen.errors import ConfigError, UsageError
from mindgen.node import verdict

if TYPE_CHECKING:
    from mindgen.llm import LLM

_LOOK_SECONDS = 0.05


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


@contextmanager
def closing(llm: "LLM") -> Iterator[None]:
    """Ends what works for it when an error comes, and has other machines told."""
    try:
        yield
    except BaseException as error:
        llm.close(*verdict(error))
        raise


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


def gather_texts(texts: list[str]) -> list[str]:
    """On the first replica the texts of all that were launched, in their order; on the others their own.

    They meet in the launcher's folder, which ends them all if one ends before its time.
    """
    launched = launched_rank()
    if launched is None or launched.num_replicas == 1:
        return texts
    meeting = launched.rendezvous.parent
    if launched.replica > 0:
        unfinished = meeting / f"texts_{launched.replica}.partial"
        unfinished.write_text(json.dumps(texts), encoding="utf-8")
        unfinished.rename(meeting / f"texts_{launched.replica}.json")
        return texts
    gathered = list(texts)
    for replica in range(1, launched.num_replicas):
        path = meeting / f"texts_{replica}.json"
        while not path.is_file():
            time.sleep(_LOOK_SECONDS)
        gathered += json.loads(path.read_text(encoding="utf-8"))
    return gathered
