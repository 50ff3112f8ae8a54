"""Beam search as transformers does it: which beams go on, which outputs are finished, when to stop."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mindgen.engine.sampler import Continuation
from mindgen.sampling_params import SamplingParams


class Fork(NamedTuple):
    """A live beam of the next step: the one of this step that it goes on from, by its place, and with what token."""

    parent: int
    token_id: int


class Beam(NamedTuple):
    """What a live beam has put out so far; cumulative_logprob is the sum over its tokens."""

    token_ids: tuple[int, ...] = ()
    cumulative_logprob: float = 0.0


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished output; score is cumulative_logprob / length ** length_penalty."""

    token_ids: tuple[int, ...]
    cumulative_logprob: float
    score: float
    finish_reason: Literal["stop", "length"]


class _Candidate(NamedTuple):
    beam: Beam
    fork: Fork
    is_finished: bool


class BeamSearch:
    """The search of one request; it begins with one live beam, that of the prompt.

    Each step, the caller gets the `num_continuations` best tokens of every live beam and passes them to `advance`,
    which says of what beams and tokens the next live beams are made, until `is_done`.

    Args:
        stop_token_ids: what ends an output; the end-of-sequence tokens among them.
        max_tokens: of an output.

    Attributes:
        beams: the live ones, best first.
        hypotheses: the best outputs finished so far, best first; num_beams of them when the search is done.
        num_continuations: so many that beams remain when the likeliest tokens end their outputs.
    """

    def __init__(
        self,
        num_beams: int,
        stop_token_ids: Collection[int],
        max_tokens: int,
        length_penalty: float = 1.0,
        early_stopping: bool | Literal["never"] = False,
    ) -> None:
        self.beams = [Beam()]
        self.hypotheses: list[Hypothesis] = []
        self.is_done = False
        self.num_continuations = max(2, 1 + len(stop_token_ids)) * num_beams
        self._num_beams = num_beams
        self._stop_token_ids = frozenset(stop_token_ids)
        self._max_tokens = max_tokens
        self._length_penalty = length_penalty
        self._early_stopping = early_stopping

    @classmethod
    def of(cls, params: SamplingParams, max_tokens: int, eos_token_ids: Collection[int]) -> "BeamSearch | None":
        """That of a request; None unless it asks for one."""
        if not params.use_beam_search:
            return None
        stop_token_ids = {*(() if params.ignore_eos else eos_token_ids), *params.stop_token_ids}
        return cls(params.num_sequences, stop_token_ids, max_tokens, params.length_penalty, params.early_stopping)

    def advance(self, continuations: Sequence[Sequence[Continuation]]) -> list[Fork]:
        """One step, from the best next tokens of each live beam; afterwards `beams` are those that were forked."""
        candidates = self._candidates(continuations)
        live = [candidate for candidate in candidates if not candidate.is_finished][: self._num_beams]
        finished = [self._hypothesis(c.beam) for c in candidates[: self._num_beams] if c.is_finished]
        best = sorted([*self.hypotheses, *finished], key=lambda hypothesis: -hypothesis.score)
        self.hypotheses = best[: self._num_beams]
        self.beams = [candidate.beam for candidate in live]
        self.is_done = not live or not self._may_improve()
        return [] if self.is_done else [candidate.fork for candidate in live]

    def _candidates(self, continuations: Sequence[Sequence[Continuation]]) -> list[_Candidate]:
        """The best continuations of all live beams, best first; of equals, those of the better beam."""
        found = []
        for parent, (beam, tokens) in enumerate(zip(self.beams, continuations, strict=True)):
            for token_id, logprob in tokens:
                longer = Beam((*beam.token_ids, token_id), beam.cumulative_logprob + logprob)
                is_finished = token_id in self._stop_token_ids or len(longer.token_ids) >= self._max_tokens
                found.append(_Candidate(longer, Fork(parent, token_id), is_finished))
        return sorted(found, key=lambda candidate: -candidate.beam.cumulative_logprob)[: self.num_continuations]

    def _hypothesis(self, beam: Beam) -> Hypothesis:
        return Hypothesis(
            token_ids=beam.token_ids,
            cumulative_logprob=beam.cumulative_logprob,
            score=self._score(beam.cumulative_logprob, len(beam.token_ids)),
            finish_reason="stop" if beam.token_ids[-1] in self._stop_token_ids else "length",
        )

    def _score(self, cumulative_logprob: float, length: int) -> float:
        return cumulative_logprob / length**self._length_penalty

    def _may_improve(self) -> bool:
        """Whether a live beam may still become better than a finished output."""
        if len(self.hypotheses) < self._num_beams:
            return True
        if self._early_stopping is True:
            return False
        best = self.beams[0]
        # A positive penalty favours long outputs; without "never", transformers supposes that they end here.
        as_long = self._early_stopping == "never" and self._length_penalty > 0
        length = self._max_tokens if as_long else len(best.token_ids)
        return self._score(best.cumulative_logprob, length) > self.hypotheses[-1].score
