"""What an engine has done since it started, and what it is at."""

from collections.abc import Iterable
from dataclasses import dataclass

from mindgen.adapters.pool_metrics import PoolMetrics
from mindgen.engine.sequence import Sequence


@dataclass(slots=True)
class RequestCounters:
    """Since the start; tokens of prompts count when the first token after them is there.

    Attributes:
        finished: requests that have ended, those that failed included.
        failed: those with an error.
        cached_prompt_tokens: the ones that came from the prefix cache.
        preemptions: how often a sequence gave its blocks to others, and waited again.
    """

    finished: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    generated_tokens: int = 0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """A moment of an engine.

    Attributes:
        requests_running: sequences in the batch; a request with several outputs has as many.
        requests_waiting: those that have not run yet.
        kv_blocks_used: blocks of the KV cache that running sequences hold; others may still be found by their tokens.
        adapters: of all adapters together; LLM.list_adapters has each one's.
        running_adapters, waiting_adapters: names of those that requests have which run, and which have not run yet.
    """

    requests_running: int
    requests_waiting: int
    requests_finished: int
    requests_failed: int
    prompt_tokens: int
    cached_prompt_tokens: int
    generated_tokens: int
    preemptions: int
    kv_blocks: int
    kv_blocks_used: int
    adapters: PoolMetrics
    running_adapters: list[str]
    waiting_adapters: list[str]


def adapters_of(sequences: Iterable[Sequence]) -> tuple[list[str], list[str]]:
    """Those of requests that have run, and of requests that have not run yet."""
    found: tuple[set[str], set[str]] = set(), set()
    for sequence in sequences:
        if sequence.request.adapter_id is not None:
            found[not sequence.request.has_joined].add(sequence.request.adapter_id)
    return sorted(found[0]), sorted(found[1])
