"""What becomes of a step's logits: next tokens, forks, beams, and the ends of sequences."""

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from mindgen.engine.block_manager import BlockManager
from mindgen.engine.guide import Guide, num_mask_words
from mindgen.engine.metrics import RequestCounters
from mindgen.engine.sampler import SampledToken, Sampler
from mindgen.engine.sampling_row import SamplingRow
from mindgen.engine.schedule import ScheduledSequence
from mindgen.engine.scheduler import Scheduler
from mindgen.engine.sequence import Request, Sequence
from mindgen.errors import MindgenError, RequestError, as_request_error
from mindgen.outputs import Logprob, TokenLogprobs


@dataclass(slots=True)
class _Asked:
    """Rows of logits and what to do with them, in the order of the batch."""

    sequences: list[tuple[Sequence, list[int]]] = field(default_factory=list)  # with its guessed tokens
    sampling_rows: list[SamplingRow] = field(default_factory=list)
    logits_rows: list[int] = field(default_factory=list)
    beams: list[tuple[Sequence, int]] = field(default_factory=list)


class OutputProcessor:
    """Brings requests forward by a step.

    Args:
        eos_token_ids: the model's, which end an output unless it ignores them.

    Attributes:
        counters: of all requests.
    """

    def __init__(
        self, sampler: Sampler, scheduler: Scheduler, blocks: BlockManager, eos_token_ids: Collection[int]
    ) -> None:
        self._sampler = sampler
        self._scheduler = scheduler
        self._blocks = blocks
        self._eos_token_ids = frozenset(eos_token_ids)
        self.counters = RequestCounters()

    def process(self, entries: list[ScheduledSequence], logits: np.ndarray) -> list[Request]:
        """The requests that have something new, from the logits (R, V) of the entries in the batch's order."""
        changed: dict[Request, None] = {}
        asked = _Asked()
        end = 0
        for entry in entries:
            sequence, num_tokens, num_logits, draft = entry
            end += num_logits
            sequence.num_computed_tokens += num_tokens - len(draft)
            if sequence.request.prompt_logprobs is not None and num_logits > 0:
                self._score_prompt(entry, logits[end - num_logits : end])
            if len(sequence.token_ids) > sequence.num_computed_tokens or num_logits == 0:
                continue  # a chunk of a prompt
            try:
                self._ask(entry, end, asked)
            except Exception as error:
                self.fail(sequence.request, as_request_error(error, "preparing the request's next token"))
            changed[sequence.request] = None
        self._sample(asked, logits)
        for sequence, row in asked.beams:
            try:
                self._continue_beam(sequence, logits[row : row + 1])
            except Exception as error:
                self.fail(sequence.request, as_request_error(error, "searching the request's beams"))
        for entry in entries:
            if entry.sequence.block_table:
                self._blocks.remember(entry.sequence)
        return list(changed)

    def finish(self, sequence: Sequence, reason: str, stop_reason: int | str | None = None) -> None:
        """Ends a sequence that has not ended yet."""
        sequence.finish_reason, sequence.stop_reason = reason, stop_reason
        self._scheduler.finish(sequence)
        request = sequence.request
        request.num_unfinished -= 1
        if request.num_unfinished == 0:
            request.metrics.finished_time = time.perf_counter()
            self.counters.finished += 1
            self.counters.failed += request.error is not None

    def finish_all(self, request: Request, reason: str, stop_reason: str | None = None) -> None:
        """Ends all of a request's sequences that have not ended yet."""
        for sequence in request.sequences:
            if sequence.finish_reason is None:
                self.finish(sequence, reason, stop_reason)

    def fail(self, request: Request, error: MindgenError) -> None:
        request.error = error
        self.finish_all(request, "error")

    def _ask(self, entry: ScheduledSequence, end: int, asked: _Asked) -> None:
        """Adds what is wanted of the last logits before row `end`."""
        sequence, draft = entry.sequence, entry.draft_token_ids
        request = sequence.request
        if request.beam_search is not None:
            asked.beams.append((sequence, end - 1))
            return
        together = [sequence]
        if len(sequence.token_ids) == sequence.prompt_len and sequence.index == 0:
            together = request.sequences
            for child in together[1:]:
                self._scheduler.fork(sequence, child)
            together = [each for each in together if each.block_table]
        for each in together:
            if each.matcher is not None:
                _fill_mask(each, each.matcher)
            ahead = each.sampling_row.ahead(draft)
            asked.sequences.append((each, draft))
            asked.sampling_rows += [each.sampling_row, *ahead]
            if draft:
                asked.logits_rows += range(end - 1 - len(draft), end - 1)
            asked.logits_rows.append(end - 1)

    def _sample(self, asked: _Asked, logits: np.ndarray) -> None:
        if not asked.sampling_rows:
            return
        if asked.logits_rows != list(range(len(logits))):
            logits = logits[asked.logits_rows]
        sampled, end = self._sampler.sample(logits, asked.sampling_rows), 0
        now = time.perf_counter()
        for sequence, draft in asked.sequences:
            first, end = end, end + 1 + len(draft)
            if sequence.finish_reason is not None:  # another output of its request has just failed
                continue
            if sequence.request.metrics.first_token_time is None:
                self._note_first_token(sequence.request, now)
            self._append(sequence, sampled[first])
            for place, guessed in enumerate(draft, start=first):
                if sequence.finish_reason is not None or sampled[place].token_id != guessed:
                    break
                sequence.num_computed_tokens += 1  # the guess was right, and the cache has it
                self._append(sequence, sampled[place + 1])

    def _append(self, sequence: Sequence, token: SampledToken) -> None:
        """Takes a token, and ends the sequence if it is done."""
        request = sequence.request
        if token.error is not None:
            self.fail(request, RequestError(token.error))
            return
        self.counters.generated_tokens += 1
        sequence.token_ids.append(token.token_id)
        sequence.sampling_row.append(token.token_id)
        if token.logprob is not None:
            sequence.cumulative_logprob += token.logprob
            sequence.logprobs.append(_logprobs_of(token))
        if token.processed_logprob is not None:
            sequence.processed_logprobs.append(token.processed_logprob)
        if sequence.matcher is not None and token.token_id not in self._eos_token_ids:
            try:
                sequence.matcher.accept(token.token_id)
            except Exception as error:
                self.fail(request, as_request_error(error, "following the request's guide"))
                return
        if sequence.sampling_row.position < len(request.params.forced_token_ids):
            return
        if token.token_id in self._eos_token_ids and not request.params.ignore_eos:
            self.finish(sequence, "stop")
        elif token.token_id in request.params.stop_token_ids:
            self.finish(sequence, "stop", token.token_id)
        elif sequence.matcher is not None and sequence.matcher.is_finished:
            self.finish(sequence, "stop")
        elif len(sequence.token_ids) >= request.max_len:
            self.finish(sequence, "length")

    def _continue_beam(self, beam: Sequence, logits: np.ndarray) -> None:
        """Takes what may follow a beam, from its logits (1, V); the search goes on once it has all of them."""
        request = beam.request
        search = request.beam_search
        assert search is not None
        if request.is_finished:
            return
        found = self._sampler.continuations(logits, [beam.sampling_row], search.num_continuations)[0]
        if isinstance(found, str):
            self.fail(request, RequestError(found))
            return
        if request.metrics.first_token_time is None:
            self._note_first_token(request, time.perf_counter())
        request.continuations[beam] = found
        if len(request.continuations) < len(request.sequences):
            return
        beams = request.sequences
        forks = search.advance([request.continuations[each] for each in beams])
        request.continuations = {}
        if search.is_done:
            self.finish_all(request, "stop")
            return
        children = [(beams[fork.parent], _grown(beams[fork.parent], fork.token_id, i)) for i, fork in enumerate(forks)]
        request.sequences = [child for _, child in children]
        request.num_unfinished = len(children)
        self.counters.generated_tokens += len(children)
        self._scheduler.replace(beams, children)

    def _note_first_token(self, request: Request, now: float) -> None:
        request.metrics.first_token_time = now
        self.counters.prompt_tokens += len(request.prompt_token_ids)
        self.counters.cached_prompt_tokens += request.num_cached_tokens

    def _score_prompt(self, entry: ScheduledSequence, logits: np.ndarray) -> None:
        """Adds the log-probabilities of the prompt tokens that follow the entry's positions."""
        sequence = entry.sequence
        request = sequence.request
        assert request.prompt_logprobs is not None and request.params.prompt_logprobs is not None
        first = sequence.num_computed_tokens - len(logits) + 1  # the token that the first row is about
        skipped = len(request.prompt_logprobs) - first
        targets = request.prompt_token_ids[first + skipped : first + len(logits)]
        if skipped < 0 or not targets:
            return
        rows = logits[skipped : skipped + len(targets)]
        for token in self._sampler.score(rows, targets, request.params.prompt_logprobs):
            request.prompt_logprobs.append(None if token.error else _logprobs_of(token))


def _grown(beam: Sequence, token_id: int, index: int) -> Sequence:
    """The beam with one more token."""
    (row,) = beam.sampling_row.ahead([token_id])
    return Sequence(beam.request, index, [*beam.token_ids, token_id], row, eras=list(beam.eras))


def _fill_mask(sequence: Sequence, matcher: Guide) -> None:
    """Has the sequence's grammar say what may come next."""
    if sequence.mask is None:
        sequence.mask = np.zeros(num_mask_words(sequence.sampling_row.vocab_size), np.uint32)
    matcher.fill_mask(sequence.mask)
    sequence.sampling_row.token_mask = sequence.mask


def _logprobs_of(token: SampledToken) -> TokenLogprobs:
    """The likeliest tokens that were asked for, and the token itself."""
    assert token.top_logprobs is not None and token.logprob is not None and token.rank is not None
    logprobs = {each: Logprob(value, rank) for rank, (each, value) in enumerate(token.top_logprobs.items(), start=1)}
    logprobs.setdefault(token.token_id, Logprob(token.logprob, token.rank))
    return logprobs
