"""What all chunks of an answer have in common, and what they say of its cost."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mindgen.outputs import RequestOutput, TextChunk
from mindgen.server.model import ModelIdentity
from mindgen.server.protocol.body import AnsweredBy
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
    def of(cls, prefix: str, adapter_id: str | None, identity: ModelIdentity) -> "AnswerHead":
        return cls(f"{prefix}-{uuid.uuid4().hex}", int(time.time()), adapter_id or identity.name, identity)

    def fields(self) -> dict[str, Any]:
        """Of every response and every chunk."""
        return {
            "id": self.id,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.identity.fingerprint,
            "model_digest": self.identity.digest,
        }


def answered_by(given: Sequence[RequestOutput | TextChunk]) -> dict[str, Any]:
    """What has answered: the newest of the weights, the adapter's and the base model's."""
    newest = max(given, key=lambda each: (each.weight_version, each.adapter_version or 0))
    return {
        "adapter_digest": newest.adapter_digest,
        "adapter_version": newest.adapter_version,
        "weight_version": newest.weight_version,
        "weight_checksum": newest.weight_checksum,
    }


def digest_headers(answer: AnsweredBy) -> dict[str, str]:
    """What an answer, or the first chunk of one, says of what has answered."""
    found = {
        "X-Mindgen-Model-Digest": answer.model_digest,
        "X-Mindgen-Adapter-Digest": answer.adapter_digest,
        "X-Mindgen-Adapter-Version": answer.adapter_version,
        "X-Mindgen-Weight-Version": answer.weight_version,
        "X-Mindgen-Weight-Checksum": answer.weight_checksum,
    }
    return {name: str(value) for name, value in found.items() if value is not None}


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
