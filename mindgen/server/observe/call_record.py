"""What is noted of one HTTP request's generation, for metrics and the access log."""

import time
from dataclasses import dataclass, field
from typing import Protocol

from mindgen.outputs import RequestOutput, TextChunk


@dataclass(slots=True)
class CallSummary:
    """
    Attributes:
        finish_reasons: of the outputs; "abort" of a request that has not ended, "error" of one that failed.
        prompts, answers: texts, kept only where the log may hold them.
    """

    adapter_id: str | None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    finish_reasons: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)


class CallObserver(Protocol):
    """Is told of tokens that come, of outputs that end, and of the end of a call."""

    def gap(self, seconds: float, num_tokens: int) -> None: ...
    def finished(self, output: RequestOutput, adapter_id: str | None) -> None: ...
    def ended(self, summary: CallSummary) -> None: ...


class CallRecord:
    """
    Args:
        num_requests: of the call.
        is_streamed: its tokens come as they are generated, and not at the end.
        with_texts: keep prompts and answers.
    """

    def __init__(
        self, observer: CallObserver, adapter_id: str | None, num_requests: int, is_streamed: bool, with_texts: bool
    ) -> None:
        self._observer = observer
        self._is_streamed = is_streamed
        self._num_open = num_requests
        self._with_texts = with_texts
        self._last: dict[tuple[int, int], float] = {}  # when an output's last tokens came
        self.summary = CallSummary(adapter_id)

    def note(self, chunk: TextChunk) -> None:
        """What has come."""
        if chunk.output is not None:
            self._note_end(chunk.output)
        elif chunk.token_ids and self._is_streamed:
            now, key = time.perf_counter(), (chunk.index, chunk.output_index)
            if key in self._last:
                self._observer.gap(now - self._last[key], len(chunk.token_ids))
            self._last[key] = now

    def end(self) -> None:
        """Nothing more comes."""
        self.summary.finish_reasons += ["abort"] * self._num_open
        self._num_open = 0
        self._observer.ended(self.summary)

    def _note_end(self, output: RequestOutput) -> None:
        summary = self.summary
        self._num_open -= 1
        summary.prompt_tokens += len(output.prompt_token_ids)
        summary.cached_tokens += output.num_cached_tokens
        summary.completion_tokens += sum(len(each.token_ids) for each in output.outputs)
        if output.exception is None:
            summary.finish_reasons += [each.finish_reason or "abort" for each in output.outputs]
        else:
            summary.finish_reasons.append("error")
        if self._with_texts:
            summary.prompts.append(output.prompt or "")
            summary.answers += [each.text for each in output.outputs]
        if not self._is_streamed:
            self._note_gaps(output)
        self._observer.finished(output, summary.adapter_id)

    def _note_gaps(self, output: RequestOutput) -> None:
        """Of outputs that grew side by side, each as long as those of the longest are on average."""
        times, counts = output.metrics, [len(each.token_ids) for each in output.outputs]
        if times is None or times.first_token_time is None or times.finished_time is None or max(counts, default=0) < 2:
            return
        gap = (times.finished_time - times.first_token_time) / (max(counts) - 1)
        num_gaps = sum(count - 1 for count in counts if count > 1)
        self._observer.gap(gap * num_gaps, num_gaps)
