"""Runs requests through a real engine, checks it after every step, and counts what it does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mindgen.adapters.registry import AdapterRegistry
from mindgen.engine.engine_config import EngineConfig
from mindgen.engine.engine_spec import EngineSpec
from mindgen.engine.open_engine import open_engine
from mindgen.engine.sequence import Request
from mindgen.sampling_params import SamplingParams
from mindgen.weights.architecture import read_model_config
from mindgen.weights.weight_files import find_weights


@dataclass(frozen=True)
class Ask:
    prompt: list[int]
    params: SamplingParams = field(default_factory=SamplingParams)
    adapter_id: str | None = None


class EngineProbe:
    """An engine over a model's folder.

    Attributes:
        num_steps: with something to compute.
        num_preempted, num_swapped: sequences that gave their blocks back, and those of them that went to host memory.
    """

    def __init__(
        self, folder: Path, adapters: dict[str, Path] | None = None, dtype: str = "float32", **limits: object
    ) -> None:
        registry = AdapterRegistry(adapters or {})
        limits = {"block_size": 4, **limits}
        spec = EngineSpec(read_model_config(folder), dtype, EngineConfig(**limits))
        self.engine = open_engine(spec, find_weights(folder, None, 1), registry)
        self.num_steps = self.num_preempted = self.num_swapped = 0
        self._preempt = self.engine._scheduler._preempt
        self.engine._scheduler._preempt = self._count_preempted

    def add(self, ask: Ask) -> Request:
        return self.engine.add_request(ask.prompt, ask.params, ask.adapter_id)

    def step(self) -> list[Request]:
        changed = self.engine.step()
        self.num_steps += 1
        self.engine.check_integrity()
        return changed

    def run(self, asks: Iterable[Ask], one_by_one: bool = False, limit: int = 5000) -> list[Request]:
        """The finished requests of all asks at once, or of one more in every step."""
        requests = []
        for ask in asks:
            requests.append(self.add(ask))
            if one_by_one:
                self.step()
        for _ in range(limit):
            if not self.engine.has_unfinished():
                break
            self.step()
        assert all(request.is_finished for request in requests), "does not come to an end"
        assert self.num_free == self.engine.memory_plan.num_blocks, "blocks are lost"
        return requests

    def alone(self, asks: Iterable[Ask]) -> list[Request]:
        """The finished requests, each of which had the engine to itself and found nothing in the cache."""
        requests = []
        for ask in asks:
            self.engine.reset_prefix_cache()
            requests += self.run([ask])
        return requests

    @property
    def num_free(self) -> int:
        return self.engine._blocks.num_free

    def _count_preempted(self, sequence, schedule) -> None:
        self.num_preempted += 1
        self._preempt(sequence, schedule)
        self.num_swapped += sequence.swapped_blocks > 0


def tokens(requests: Sequence[Request]) -> list[list[list[int]]]:
    """Of each request the tokens of its outputs; none may have failed."""
    assert [request.error for request in requests] == [None] * len(requests)
    return [[sequence.output_token_ids for sequence in request.sequences] for request in requests]
