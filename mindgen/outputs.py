"""What a request gives back."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from mindgen.errors import MindgenError


class Logprob(float):
    """The log-probability of a token: a number, with its rank (1 is the likeliest) and the token's text."""

    __slots__ = ("decoded_token", "rank")
    rank: int
    decoded_token: str | None

    def __new__(cls, logprob: float, rank: int, decoded_token: str | None = None) -> "Logprob":
        made = super().__new__(cls, logprob)
        made.rank = rank
        made.decoded_token = decoded_token
        return made

    def __getnewargs__(self) -> tuple[float, int, str | None]:  # type: ignore[override]
        return self.as_record()

    def as_record(self) -> tuple[float, int, str | None]:
        return float(self), self.rank, self.decoded_token

    @classmethod
    def from_record(cls, record: Any) -> "Logprob":
        return cls(*msgspec.convert(record, tuple[float, int, str | None]))

    @property
    def logprob(self) -> float:
        return float(self)


# Of one position, by token id: as many of the likeliest tokens as were asked for, and the one that stands there.
TokenLogprobs: TypeAlias = dict[int, Logprob]


@dataclass(slots=True)
class RequestMetrics:
    """Times are seconds of time.perf_counter().

    Attributes:
        scheduled_time: when it first had a place in the batch.
    """

    arrival_time: float
    scheduled_time: float | None = None
    first_token_time: float | None = None
    finished_time: float | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One generated continuation.

    Attributes:
        index: of the outputs of its request, the likeliest first for best_of and beam search.
        cumulative_logprob: the sum over token_ids, or a beam's; None unless it was needed.
        logprobs: of each of token_ids, the network's own, before penalties, temperature and filters; None unless asked
            for.
        processed_logprobs: of each of token_ids in the distribution that it was drawn from, after all of these (0 where
            the choice was greedy); None unless asked for.
        finish_reason: "stop" (an end token or stop text), "length" (max_tokens or the context), "abort" (called off,
            or out of time), "error"; None while it grows.
        stop_reason: the stop text or stop token that ended it, "deadline"; None for the end of sequence. Where new
            weights have called it off, "weights", or "stale" by max_staleness.
        weight_versions: of the base model for each of token_ids, if weights have changed since the first.
        adapter_versions: the same of the adapter.
    """

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    processed_logprobs: list[float] | None = None
    weight_versions: list[int] | None = None
    adapter_versions: list[int | None] | None = None


@dataclass(slots=True)
class RequestOutput:
    """A request with what was generated so far.

    Attributes:
        prompt_logprobs: of each of prompt_token_ids, None for the first; None unless asked for.
        num_cached_tokens: tokens of the prompt that another request had computed before.
        adapter_id, adapter_digest: what really answered.
        weight_checksum: the checksum of the base model's weights.
        weight_version, adapter_version: of these weights, and of the adapter's, where a program has sent new ones.
        error: why the request failed; it then has no outputs.
        exception: the same, as what it would be raised as.
    """

    request_id: int
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics | None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    num_cached_tokens: int = 0
    adapter_id: str | None = None
    adapter_digest: str | None = None
    warnings: list[str] = field(default_factory=list)
    error: str | None = None
    exception: MindgenError | None = None
    weight_checksum: str | None = None
    weight_version: int = 0
    adapter_version: int | None = None

    @classmethod
    def failed(
        cls, request_id: int, prompt: str | None, adapter_id: str | None, exception: MindgenError
    ) -> "RequestOutput":
        """Of a request that the engine never saw."""
        return cls(
            request_id, prompt, [], [], True, None, adapter_id=adapter_id, error=str(exception), exception=exception
        )


@dataclass(frozen=True, slots=True)
class TextChunk:
    """What a step added to a prompt's answer: tokens and text of one of its outputs, and all of it once it is finished.

    Text may lag behind the tokens: it waits for whole characters, and while a stop text may be coming.

    Attributes:
        logprobs: of each of token_ids; None unless asked for.
        adapter_digest, weight_checksum, weight_version, adapter_version: what token_ids come from, as of RequestOutput.
    """

    index: int
    text: str
    output: RequestOutput | None
    output_index: int = 0
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] | None = None
    adapter_digest: str | None = None
    weight_checksum: str | None = None
    weight_version: int = 0
    adapter_version: int | None = None
