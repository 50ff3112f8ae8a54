"""Requests inside the engine, and the sequences of tokens that answer them."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from mindgen.adapters.registry import AdapterVersion
from mindgen.engine.beam_search import BeamSearch
from mindgen.engine.guide import Guide
from mindgen.engine.sampler import Continuation
from mindgen.engine.sampling_row import SamplingRow
from mindgen.errors import MindgenError
from mindgen.outputs import RequestMetrics, TokenLogprobs
from mindgen.sampling_params import SamplingParams


class BaseVersion(NamedTuple):
    """What the base model was when it computed something: the checksum of its weights, and their version."""

    checksum: str = ""
    version: int = 0


_UNKNOWN_BASE = BaseVersion()


class Era(NamedTuple):
    """Versions of base model and adapter that all tokens before `end` come from, but for those of earlier eras."""

    end: int
    base_version: int
    adapter_version: int | None


@dataclass(slots=True, eq=False)
class Request:
    """What was asked for; its sequences are the outputs, more of which are generated than returned with best_of.

    Attributes:
        max_len: tokens of prompt and output together.
        base: that answers, or has answered.
        adapter: None for the base model.
        adapter_slot: its adapter's slot in the LoRA weights while its sequences run; None for the base model.
        adapter_digest: what its adapter is made of, once it has been read; None for the base model.
        queue_rank: of waiting requests, the lowest goes first.
        num_overtaken: how many later ones went before because their adapters had a place.
        deadline: in time.perf_counter() seconds.
        prompt_logprobs: one entry for each prompt token as they are computed, None for the first; None if not asked.
        beam_search: the search that its sequences are beams of.
        continuations: what may follow those of its beams that this step of the search has reached.
        num_unfinished: its sequences that have not ended yet.
        has_joined: whether it has ever run.
        num_cached_tokens: tokens of the prompt that the cache had then.
        error: why it failed.
    """

    request_id: int
    prompt_token_ids: list[int]
    params: SamplingParams
    max_len: int
    metrics: RequestMetrics
    base: BaseVersion = _UNKNOWN_BASE
    adapter: AdapterVersion | None = None
    adapter_slot: int | None = None
    adapter_digest: str | None = None
    queue_rank: int = 0
    num_overtaken: int = 0
    deadline: float | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None
    beam_search: BeamSearch | None = None
    continuations: dict["Sequence", list[Continuation]] = field(default_factory=dict)
    sequences: list["Sequence"] = field(default_factory=list)
    num_unfinished: int = 0
    has_joined: bool = False
    num_cached_tokens: int = 0
    error: MindgenError | None = None

    @property
    def adapter_id(self) -> str | None:
        return None if self.adapter is None else self.adapter.adapter_id

    @property
    def adapter_version(self) -> int | None:
        return None if self.adapter is None else self.adapter.weight_version

    @property
    def is_finished(self) -> bool:
        return self.num_unfinished == 0

    def cache_root(self) -> bytes:
        """What its blocks of the KV cache are known by, besides their tokens: no other weights give the same."""
        return f"{self.base.checksum} {self.base.version} {self.adapter_digest or ''}".encode()


@dataclass(slots=True, eq=False)
class Sequence:
    """One output of a request as it grows; the scheduler fills block_table, the engine the rest.

    Attributes:
        index: of the request's outputs.
        token_ids: the prompt's, then the generated ones.
        sampling_row: what the sampler knows of it.
        matcher, mask: where it stands in its grammar, and the tokens that this allows next.
        block_table: the KV blocks it reads and writes, in order; others may read them too.
        block_keys: of the full blocks, for the prefix cache.
        num_remembered_blocks: so many of the first ones the prefix cache knows.
        num_computed_tokens: tokens whose keys and values are in the cache.
        eras: of tokens that came before the weights have changed; none if all came from the request's base and adapter.
        swapped_blocks: how many blocks of it are in host memory, while it waits to come back.
        finish_reason: None while it runs, then "stop", "length", "abort" or "error".
        stop_reason: the token or text that ended it, or "deadline".
    """

    request: Request
    index: int
    prompt_len: int = field(init=False)
    token_ids: list[int]
    sampling_row: SamplingRow
    matcher: Guide | None = None
    mask: np.ndarray | None = None
    block_table: list[int] = field(default_factory=list)
    block_keys: list[bytes] = field(default_factory=list)
    num_remembered_blocks: int = 0
    num_computed_tokens: int = 0
    eras: list[Era] = field(default_factory=list)
    swapped_blocks: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    processed_logprobs: list[float] = field(default_factory=list)
    cumulative_logprob: float = 0.0
    finish_reason: str | None = None
    stop_reason: int | str | None = None

    def __post_init__(self) -> None:
        self.prompt_len = len(self.request.prompt_token_ids)

    @property
    def rank(self) -> tuple[int, int, int]:
        """Sequences of lower ranks go first; no two have the same."""
        return self.request.queue_rank, self.request.request_id, self.index

    @property
    def output_token_ids(self) -> list[int]:
        return self.token_ids[self.prompt_len :]

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def is_prompt(self) -> bool:
        """Whether more than the last token is still to be computed."""
        return len(self.token_ids) - self.num_computed_tokens > 1

    @property
    def wants_prompt_logits(self) -> bool:
        logprobs = self.request.prompt_logprobs
        return logprobs is not None and len(logprobs) < self.prompt_len and self.index == 0

    def close_era(self) -> None:
        """What it has generated so far comes from other weights than what follows."""
        if len(self.token_ids) > self.prompt_len:
            self.eras.append(Era(len(self.token_ids), self.request.base.version, self.request.adapter_version))

    def eras_of(self, num_tokens: int) -> list[Era] | None:
        """One for each of its first generated tokens; None where all are the request's."""
        if not self.eras:
            return None
        last = Era(self.prompt_len + num_tokens, self.request.base.version, self.request.adapter_version)
        places = range(self.prompt_len, self.prompt_len + num_tokens)
        return [next((era for era in self.eras if place < era.end), last) for place in places]

    def cut(self, num_tokens: int) -> None:
        """Leaves the first num_tokens of prompt and output, with what was said of them."""
        del self.token_ids[num_tokens:]
        del self.logprobs[num_tokens - self.prompt_len :]
        del self.processed_logprobs[num_tokens - self.prompt_len :]
        pairs = zip(self.logprobs, self.output_token_ids, strict=False)  # where nobody asked there are none
        self.cumulative_logprob = sum((logprobs[token_id] for logprobs, token_id in pairs), 0.0)
