"""What a request gives back."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestMetrics:
    """Times are seconds of time.perf_counter()."""

    arrival_time: float
    first_token_time: float | None = None
    finished_time: float | None = None


@dataclass(slots=True)
class CompletionOutput:
    """One generated continuation; finish_reason is "stop" (end of sequence) or "length" (max_tokens or context)."""

    index: int
    text: str
    token_ids: list[int]
    finish_reason: str | None = None


@dataclass(slots=True)
class RequestOutput:
    """A request with what was generated so far; adapter_id and adapter_digest say what really answered."""

    request_id: int
    prompt: str
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    metrics: RequestMetrics
    adapter_id: str | None = None
    adapter_digest: str | None = None
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TextChunk:
    """What a step added to a prompt's answer: its text, and the whole output once it is finished."""

    index: int
    text: str
    output: RequestOutput | None
