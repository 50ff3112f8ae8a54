"""A request on its way through the engine, with the texts that it has given so far."""

from dataclasses import dataclass, field
from typing import Any

from mindgen.engine.engine import Engine
from mindgen.engine.sequence import Request, Sequence
from mindgen.outputs import CompletionOutput, Logprob, RequestOutput, TextChunk, TokenLogprobs
from mindgen.sampling_params import SamplingParams
from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.guided import GuidedMatcher
from mindgen.text.stop_strings import StopMatcher
from mindgen.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request as the engine takes it."""

    prompt: str | None
    token_ids: list[int]
    params: SamplingParams
    adapter_id: str | None
    matcher: GuidedMatcher | None = None
    bad_words: list[list[int]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class OutputText:
    """One output's text: its tokens' characters once they are whole, up to the first stop text."""

    def __init__(self, request: Request, tokenizer: Tokenizer) -> None:
        params = request.params
        self._detokenizer = IncrementalDetokenizer(tokenizer, request.prompt_token_ids, params.skip_special_tokens)
        self._has_stops = bool(params.stop)
        self._stop = StopMatcher(params.stop, params.include_stop_str_in_output)
        self._min_len = len(request.prompt_token_ids) + params.min_tokens
        self._num_tokens = self._prompt_len = len(request.prompt_token_ids)
        self.text = ""

    @property
    def num_tokens(self) -> int:
        """Of the output, that have been looked at."""
        return self._num_tokens - self._prompt_len

    def advance(self, sequence: Sequence, engine: Engine) -> tuple[str, list[int]]:
        """The sequence's new tokens and what they add; the sequence is stopped where a stop text is complete."""
        if self._stop.stop_reason is not None:
            return "", []
        added, first = "", self._num_tokens
        if not self._has_stops:
            self._num_tokens = len(sequence.token_ids)
            added = self._detokenizer.append(sequence.token_ids[first:])
        while self._num_tokens < len(sequence.token_ids) and self._stop.stop_reason is None:
            token_id = sequence.token_ids[self._num_tokens]
            self._num_tokens += 1
            piece = self._detokenizer.append([token_id])
            # A stop text that min_tokens forbids is text like any other.
            added += piece if self._num_tokens < self._min_len else self._stop.append(piece)
        if self._stop.stop_reason is not None:
            engine.stop(sequence, self._stop.stop_reason, self._num_tokens)
        elif sequence.finish_reason is not None:
            rest = self._stop.append(self._detokenizer.flush())
            if self._stop.stop_reason is None:
                rest += self._stop.flush()
            added += rest
        self.text += added
        return added, sequence.token_ids[first : self._num_tokens]


class OpenRequest:
    """Turns what the engine does to a request into chunks of text, and into its output at the end.

    Attributes:
        is_streamed: somebody waits for its text; what nobody waits for is made at the end.
        has_stops: its text may end it, so it has to be seen when it comes.
        is_eager: its next text cannot wait for a later step.
    """

    def __init__(
        self, index: int, prepared: PreparedRequest, request: Request, tokenizer: Tokenizer, is_streamed: bool
    ) -> None:
        self.index = index
        self.request = request
        self._chunks: list[TextChunk] = []
        self._prompt = prepared.prompt
        self._tokenizer = tokenizer
        self._warnings = prepared.warnings
        self.is_streamed = is_streamed
        self.has_stops = bool(request.params.stop)
        self.is_eager = is_streamed or self.has_stops
        self._texts: dict[Sequence, OutputText] = {}

    def advance(self, engine: Engine) -> None:
        """Fetches what the engine's last step has brought."""
        request = self.request
        if request.beam_search is None and request.error is None:
            for sequence in request.sequences:
                text, token_ids = self._text(sequence).advance(sequence, engine)
                # Texts of which only some are returned are known at the end.
                if (text or token_ids) and request.params.n == request.params.num_sequences:
                    logprobs = self._logprobs(sequence, self._text(sequence).num_tokens - len(token_ids))
                    self._chunks.append(self._chunk(text, None, sequence.index, token_ids, logprobs))
        if not request.is_finished:
            return
        output = self.output()
        if request.params.n < request.params.num_sequences or request.beam_search is not None:
            self._chunks += [
                self._chunk(each.text, None, each.index, each.token_ids, each.logprobs) for each in output.outputs
            ]
        self._chunks.append(self._chunk("", output))

    def take_chunks(self) -> list[TextChunk]:
        """Those that have come since the last time."""
        chunks, self._chunks = self._chunks, []
        return chunks

    def output(self) -> RequestOutput:
        """As it stands."""
        request = self.request
        return RequestOutput(
            request_id=request.request_id,
            prompt=self._prompt,
            prompt_token_ids=request.prompt_token_ids,
            outputs=self._completions() if request.error is None else [],
            finished=request.is_finished,
            metrics=request.metrics,
            prompt_logprobs=self._prompt_logprobs() if request.error is None else None,
            num_cached_tokens=request.num_cached_tokens,
            adapter_id=request.adapter_id,
            adapter_digest=request.adapter_digest,
            warnings=self._warnings,
            error=None if request.error is None else str(request.error),
            exception=request.error,
            weight_checksum=request.base.checksum,
            weight_version=request.base.version,
            adapter_version=request.adapter_version,
        )

    def _chunk(
        self,
        text: str,
        output: RequestOutput | None,
        output_index: int = 0,
        token_ids: list[int] | None = None,
        logprobs: list[TokenLogprobs] | None = None,
    ) -> TextChunk:
        """With what answers now."""
        request = self.request
        return TextChunk(
            self.index, text, output, output_index, token_ids or [], logprobs,
            request.adapter_digest, request.base.checksum, request.base.version, request.adapter_version,
        )  # fmt: skip

    def _prompt_logprobs(self) -> list[TokenLogprobs | None] | None:
        logprobs = self.request.prompt_logprobs
        return None if logprobs is None else [self._decoded(each) for each in logprobs]

    def _completions(self) -> list[CompletionOutput]:
        request, params = self.request, self.request.params
        if request.beam_search is not None:
            return self._hypotheses()
        sequences = list(request.sequences)
        if params.n < len(sequences):
            sequences.sort(key=lambda sequence: -sequence.cumulative_logprob)
        return [
            CompletionOutput(
                index=index,
                text=self._text(sequence).text,
                token_ids=sequence.output_token_ids,
                cumulative_logprob=sequence.cumulative_logprob if sequence.sampling_row.num_logprobs >= 0 else None,
                logprobs=self._logprobs(sequence, 0),
                finish_reason=sequence.finish_reason,
                stop_reason=sequence.stop_reason,
                processed_logprobs=sequence.processed_logprobs if params.processed_logprobs else None,
                **_versions(sequence, len(sequence.output_token_ids)),
            )
            for index, sequence in enumerate(sequences[: params.n])
        ]

    def _hypotheses(self) -> list[CompletionOutput]:
        """Of a beam search: best first, and none before it has found some."""
        request, params = self.request, self.request.params
        assert request.beam_search is not None
        completions = []
        for index, hypothesis in enumerate(request.beam_search.hypotheses[: params.n]):
            detokenizer = IncrementalDetokenizer(self._tokenizer, request.prompt_token_ids, params.skip_special_tokens)
            token_ids = list(hypothesis.token_ids)
            text = detokenizer.append(token_ids) + detokenizer.flush()
            completions.append(
                CompletionOutput(
                    index=index,
                    text=text,
                    token_ids=token_ids,
                    cumulative_logprob=hypothesis.cumulative_logprob,
                    finish_reason=hypothesis.finish_reason,
                    **_versions(request.sequences[0], len(token_ids)),  # all beams are as long
                )
            )
        return completions

    def _text(self, sequence: Sequence) -> OutputText:
        if sequence not in self._texts:
            self._texts[sequence] = OutputText(self.request, self._tokenizer)
        return self._texts[sequence]

    def _logprobs(self, sequence: Sequence, first: int) -> list[TokenLogprobs] | None:
        """Of its text's tokens from there on; None unless asked for."""
        if self.request.params.logprobs is None:
            return None
        return [self._decoded(each) or {} for each in sequence.logprobs[first : self._text(sequence).num_tokens]]

    def _decoded(self, logprobs: TokenLogprobs | None) -> TokenLogprobs | None:
        """With the tokens' texts."""
        if logprobs is None:
            return None
        return {
            token_id: Logprob(value, value.rank, self._tokenizer.decode([token_id], skip_special_tokens=False))
            for token_id, value in logprobs.items()
        }


def _versions(sequence: Sequence, num_tokens: int) -> dict[str, Any]:
    """Of a CompletionOutput, where weights have changed while it grew."""
    eras = sequence.eras_of(num_tokens)
    if eras is None:
        return {}
    versions: dict[str, Any] = {"weight_versions": [era.base_version for era in eras]}
    if sequence.request.adapter is not None:
        versions["adapter_versions"] = [era.adapter_version for era in eras]
    return versions
