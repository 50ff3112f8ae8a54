"""What became of a sample: of one of the answers to one row."""

import msgspec


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """An answer, or why there is none.

    Attributes:
        row: of the whole input, from 0.
        sample: of the answers to that row, from 0.
        text: None where it failed.
        finish_reason: as of a CompletionOutput; None where it failed.
        error: why it failed.
        error_kind: of what kind that is, for counts: "prompt", "too_long", "sampling", "adapter", "engine".
        adapter_id: the adapter that answered; None for the base model.
        adapter_digest: of its content.
        token_ids: of the answer, and
        logprobs: of each of these; None unless asked for.
    """

    row: int
    sample: int
    text: str | None = None
    finish_reason: str | None = None
    error: str | None = None
    error_kind: str | None = None
    adapter_id: str | None = None
    adapter_digest: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    token_ids: list[int] | None = None
    logprobs: list[float] | None = None
