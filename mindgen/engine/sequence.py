"""One request inside the engine."""

from dataclasses import dataclass, field

from mindgen.engine.sampling_row import SamplingRow
from mindgen.outputs import RequestMetrics
from mindgen.sampling_params import SamplingParams


@dataclass(slots=True, eq=False)
class Sequence:
    """A request's tokens and where it stands; the scheduler fills block_table, the engine the rest.

    Attributes:
        token_ids: the prompt's, then the generated ones.
        sampling_row: what the sampler knows of it.
        adapter_slot: its adapter's slot in the LoRA weights; 0 is the base model.
        block_table: the KV blocks it owns, in order.
        num_computed_tokens: tokens whose keys and values are in the cache.
        finish_reason: None while it runs, then "stop" or "length".
    """

    request_id: int
    token_ids: list[int]
    params: SamplingParams
    max_len: int
    sampling_row: SamplingRow
    metrics: RequestMetrics
    adapter_id: str | None = None
    adapter_slot: int = 0
    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    finish_reason: str | None = None
    prompt_len: int = field(init=False)

    def __post_init__(self) -> None:
        self.prompt_len = len(self.token_ids)

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.prompt_len :]

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens
