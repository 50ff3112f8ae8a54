"""Answers of /v1/completions, whole or in chunks: chunks joined are the whole answer, field by field."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from typing import Any

from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk, TokenLogprobs
from mindgen.server.generation.answer_head import AnswerHead, StreamUsage, answered_by, total_usage
from mindgen.server.generation.call import Call
from mindgen.server.generation.logprobs import (
    TextLogprobs,
    TextOffsets,
    finite_logprobs,
    prompt_logprobs,
    with_prompt,
)
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.protocol.completion import (
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
    CompletionResponse,
)
from mindgen.text.detokenizer import IncrementalDetokenizer
from mindgen.text.tokenizer import Tokenizer


class CompletionAnswer:
    """
    Args:
        prompts: of the request, in their order.
    """

    def __init__(
        self, head: AnswerHead, body: CompletionRequest, prompts: Sequence[TokenizedPrompt], tokenizer: Tokenizer
    ) -> None:
        self._head, self._body = head, body
        self._writers = [
            _ChoiceWriter(place * body.n + output, body, prompt, tokenizer)
            for place, prompt in enumerate(prompts)
            for output in range(body.n)
        ]
        self._prompt_tokens = sum(len(prompt.token_ids) for prompt in prompts)

    def whole(self, outputs: Sequence[RequestOutput]) -> CompletionResponse:
        choices = [
            self._writer(place, choice.index).whole(output, choice)
            for place, output in enumerate(outputs)
            for choice in output.outputs
        ]
        usage = total_usage(list(outputs), generates=self._body.max_tokens > 0)
        return CompletionResponse(
            **self._head.fields(),
            object="text_completion",
            choices=choices,
            usage=usage,
            **answered_by(outputs),
        )

    async def chunks(self, call: Call) -> AsyncGenerator[CompletionResponse, None]:
        usage = StreamUsage(self._body.stream_options, self._prompt_tokens)
        who: dict[str, Any] = {}
        async with aclosing(call.chunks()) as chunks:
            async for chunk in chunks:
                who = answered_by([chunk])
                if self._body.max_tokens > 0:
                    usage.count(chunk)
                for choice in self._choices(chunk):
                    yield self._chunk([choice], who | usage.of_chunk())
        at_end = usage.at_end()
        if at_end is not None:
            yield self._chunk([], who | at_end)

    def _choices(self, chunk: TextChunk) -> Iterator[CompletionChoice]:
        """What a chunk of the engine's becomes."""
        if chunk.output is None:
            piece = self._writer(chunk.index, chunk.output_index).piece(chunk)
            if piece is not None:
                yield piece
            return
        for choice in chunk.output.outputs:
            yield from self._writer(chunk.index, choice.index).ending(chunk.output, choice)

    def _chunk(self, choices: list[CompletionChoice], fields: dict[str, Any]) -> CompletionResponse:
        return CompletionResponse(**self._head.fields(), object="text_completion", choices=choices, **fields)

    def _writer(self, place: int, output: int) -> "_ChoiceWriter":
        return self._writers[place * self._body.n + output]


class _ChoiceWriter:
    """One choice as it comes."""

    def __init__(self, index: int, body: CompletionRequest, prompt: TokenizedPrompt, tokenizer: Tokenizer) -> None:
        self._index, self._body, self._prompt, self._tokenizer = index, body, prompt, tokenizer
        self._echo = ""
        if body.echo:
            given = prompt.text
            self._echo = tokenizer.decode(prompt.token_ids, body.skip_special_tokens) if given is None else given
        detokenizer = IncrementalDetokenizer(tokenizer, prompt.token_ids, body.skip_special_tokens)
        self._logprobs = TextLogprobs(tokenizer, TextOffsets(detokenizer, len(self._echo)), body.logprobs or 0)
        self._is_begun = False

    @property
    def _waits_for_prompt(self) -> bool:
        """What is said of the prompt comes first, and is known at the end."""
        return self._body.echo and self._body.logprobs is not None

    def whole(self, output: RequestOutput, choice: CompletionOutput) -> CompletionChoice:
        token_ids, logprobs, text = choice.token_ids, choice.logprobs, choice.text
        if self._body.max_tokens == 0:
            token_ids, logprobs, text = [], [] if logprobs is not None else None, ""
        found = self._of(token_ids, logprobs)
        if self._waits_for_prompt and found is not None:
            found = with_prompt(self._of_prompt(output), found)
        made = CompletionChoice(index=self._index, text=self._echo + text, logprobs=found, **_end(self._body, choice))
        if self._body.return_token_ids:
            made.token_ids, made.prompt_token_ids = token_ids, self._prompt.token_ids
        self._conclude(made, output, choice)
        return made

    def piece(self, chunk: TextChunk) -> CompletionChoice | None:
        """What a chunk adds; None for nothing."""
        if self._waits_for_prompt:
            return None
        text, token_ids, logprobs = chunk.text, chunk.token_ids, chunk.logprobs
        if self._body.max_tokens == 0:
            text, token_ids, logprobs = "", [], None
        opening = "" if self._is_begun else self._echo
        says_more = logprobs is not None or (self._body.return_token_ids and token_ids)
        if not (opening or text or says_more):
            return None
        made = CompletionChoice(
            index=self._index, text=opening + text, logprobs=self._of(token_ids, logprobs), finish_reason=None
        )
        self._open(made, token_ids)
        return made

    def ending(self, output: RequestOutput, choice: CompletionOutput) -> Iterator[CompletionChoice]:
        """The last chunk, and what had to wait for it."""
        if self._waits_for_prompt:
            yield self.whole(output, choice)
            return
        made = CompletionChoice(index=self._index, text="", logprobs=None, **_end(self._body, choice))
        if not self._is_begun:
            made.text = self._echo
            self._open(made, [])
        self._conclude(made, output, choice)
        yield made

    def _conclude(self, made: CompletionChoice, output: RequestOutput, choice: CompletionOutput) -> None:
        """What is said at the end, if it is asked for or there is something to say."""
        if self._body.prompt_logprobs is not None:
            made.prompt_logprobs = prompt_logprobs(output.prompt_logprobs)
        if self._body.processed_logprobs:
            made.processed_logprobs = finite_logprobs(choice.processed_logprobs or [])
        if choice.weight_versions is not None:
            made.weight_versions = choice.weight_versions
        if choice.adapter_versions is not None:
            made.adapter_versions = choice.adapter_versions

    def _open(self, made: CompletionChoice, token_ids: list[int]) -> None:
        if self._body.return_token_ids:
            made.token_ids = token_ids
            if not self._is_begun:
                made.prompt_token_ids = self._prompt.token_ids
        self._is_begun = True

    def _of(self, token_ids: Sequence[int], logprobs: Sequence[TokenLogprobs] | None) -> CompletionLogprobs | None:
        return None if logprobs is None else self._logprobs.of(token_ids, logprobs)

    def _of_prompt(self, output: RequestOutput) -> CompletionLogprobs:
        detokenizer = IncrementalDetokenizer(self._tokenizer, (), self._body.skip_special_tokens)
        writer = TextLogprobs(self._tokenizer, TextOffsets(detokenizer, 0), self._body.logprobs or 0)
        return writer.of(output.prompt_token_ids, output.prompt_logprobs or [])


def _end(body: CompletionRequest, choice: CompletionOutput) -> dict[str, Any]:
    """How a choice has ended."""
    if body.max_tokens == 0:
        return {"finish_reason": "length", "stop_reason": None}
    return {"finish_reason": choice.finish_reason, "stop_reason": choice.stop_reason}
