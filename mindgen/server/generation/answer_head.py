"""What all chunks of an answer have in common, and what they say of its cost."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindgen.outputs import RequestOutput, TextChunk
from mindgen.server.model import ModelIdentity
from mindgen.server.protocol.sampling import StreamOptions
from mindgen.server.protocol.usage import Usage


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """
    Attributes:
        model: the name that answers: the base model's, or the adapter's.
        created: in seconds since 1970.
    """

    id: str
    created: int
    model: str
    identity: ModelIdentity

    @classmethod
    def of(cls, prefix: str, model: str, identity: ModelIdentity) -> "AnswerHead":
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), model, identity)

    def fields(self) -> dict[str, Any]:
        """Of every response and every chunk."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.identity.fingerprint,
            "model_digest": self.identity.digest,
        }


def answered_by(outputs: Sequence[RequestOutput]) -> dict[str, Any]:
    """What is known at the end of who has answered: the adapter's content, and the newest version of the weights."""
    versions = [each.weight_version for each in outputs]
    return {"adapter_digest": outputs[0].adapter_digest, "weight_version": max(versions)}


def total_usage(outputs: list[RequestOutput], generates: bool = True) -> Usage:
    """
    Args:
        generates: false where what was generated is not asked for.
    """
    return Usage.of(
        sum(len(each.prompt_token_ids) for each in outputs),
        sum(len(choice.token_ids) for each in outputs for choice in each.outputs) if generates else 0,
        sum(each.num_cached_tokens for each in outputs),
    )


class StreamUsage:
    """Counts while chunks go out.

    Args:
        options: which of them are to say so; None is none.
        prompt_tokens: of all prompts.
    """

    def __init__(self, options: StreamOptions | None, prompt_tokens: int) -> None:
        self._options = options or StreamOptions()
        self._prompt_tokens = prompt_tokens
        self._completion_tokens = 0
        self._cached_tokens = 0

    def count(self, chunk: TextChunk) -> None:
        self._completion_tokens += len(chunk.token_ids)
        if chunk.output is not None:
            self._cached_tokens += chunk.output.num_cached_tokens

    def of_chunk(self) -> dict[str, Usage | None]:
        """The field of a chunk: with include_usage it is null before the end, without it there is none."""
        if self._options.continuous_usage_stats and self._options.include_usage:
            return {"usage": Usage.of(self._prompt_tokens, self._completion_tokens)}
        return {"usage": None} if self._options.include_usage else {}

    def at_end(self) -> dict[str, Usage] | None:
        """The field of the chunk that comes last; None where there is no such chunk."""
        if not self._options.include_usage:
            return None
        return {"usage": Usage.of(self._prompt_tokens, self._completion_tokens, self._cached_tokens)}
