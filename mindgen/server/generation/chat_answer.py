"""Answers of /v1/chat/completions, whole or in chunks: chunks joined are the whole answer, field by field."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any

from mindgen.outputs import CompletionOutput, RequestOutput, TextChunk
from mindgen.server.generation.answer_head import AnswerHead, StreamUsage, answered_by, total_usage
from mindgen.server.generation.call import Call
from mindgen.server.generation.logprobs import chat_logprobs, prompt_logprobs
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.generation.tool_calls import CallReader, Piece, call_reader
from mindgen.server.protocol.chat import (
    AnswerMessage,
    ChatChoice,
    ChatCompletionRequest,
    ChatCompletionResponse,
    ToolCall,
    ToolFunction,
)
from mindgen.text.tokenizer import Tokenizer


class ChatAnswer:
    def __init__(
        self, head: AnswerHead, body: ChatCompletionRequest, prompt: TokenizedPrompt, tokenizer: Tokenizer
    ) -> None:
        self._head, self._body, self._prompt, self._tokenizer = head, body, prompt, tokenizer
        self._readers: dict[int, CallReader] = {}  # of the choices that have begun

    def whole(self, output: RequestOutput) -> ChatCompletionResponse:
        fields: dict[str, Any] = {"usage": total_usage([output]), **answered_by([output])}
        if self._body.return_token_ids:
            fields["prompt_token_ids"] = self._prompt.token_ids
        if self._body.prompt_logprobs is not None:
            fields["prompt_logprobs"] = prompt_logprobs(output.prompt_logprobs)
        choices = [self._whole_choice(choice) for choice in output.outputs]
        return ChatCompletionResponse(**self._head.fields(), object="chat.completion", choices=choices, **fields)

    async def chunks(self, call: Call) -> AsyncGenerator[ChatCompletionResponse, None]:
        usage = StreamUsage(self._body.stream_options, len(self._prompt.token_ids))
        fields: dict[str, Any] = {"prompt_token_ids": self._prompt.token_ids} if self._body.return_token_ids else {}
        who: dict[str, Any] = {}
        async with aclosing(call.chunks()) as chunks:
            async for chunk in chunks:
                who = answered_by([chunk])
                usage.count(chunk)
                for choice in self._choices(chunk):
                    fields |= who | self._at_end(chunk) | usage.of_chunk()
                    yield self._chunk([choice], fields)
                    fields = {}
        at_end = usage.at_end()
        if at_end is not None:
            yield self._chunk([], who | at_end)

    def _chunk(self, choices: list[ChatChoice], fields: dict[str, Any]) -> ChatCompletionResponse:
        return ChatCompletionResponse(**self._head.fields(), object="chat.completion.chunk", choices=choices, **fields)

    def _at_end(self, chunk: TextChunk) -> dict[str, Any]:
        """What is known of a request at its end."""
        if chunk.output is None or self._body.prompt_logprobs is None:
            return {}
        return {"prompt_logprobs": prompt_logprobs(chunk.output.prompt_logprobs)}

    def _choices(self, chunk: TextChunk) -> Iterator[ChatChoice]:
        """What a chunk of the engine's becomes."""
        if chunk.output is None:
            yield from self._begun(chunk.output_index)
            yield from self._pieces(chunk)
            return
        for output in chunk.output.outputs:
            yield from self._begun(output.index)
            for piece in self._readers[output.index].end():
                yield ChatChoice(index=output.index, delta=_delta(piece), logprobs=None, finish_reason=None)
            end = self._end(output, self._readers[output.index])
            yield ChatChoice(index=output.index, delta=AnswerMessage(), logprobs=None, **end)

    def _begun(self, index: int) -> Iterator[ChatChoice]:
        if index not in self._readers:
            self._readers[index] = call_reader(self._body)
            message = AnswerMessage(role="assistant", content="")
            yield ChatChoice(index=index, delta=message, logprobs=None, finish_reason=None)

    def _pieces(self, chunk: TextChunk) -> Iterator[ChatChoice]:
        """The first of them says what there is to say of the tokens, though a text may be held back."""
        pieces = self._readers[chunk.output_index].add(chunk.text)
        says_more = chunk.logprobs is not None or (self._body.return_token_ids and chunk.token_ids)
        for place, piece in enumerate(pieces or ([""] if says_more else [])):
            made = ChatChoice(index=chunk.output_index, delta=_delta(piece), logprobs=None, finish_reason=None)
            if place == 0:
                self._say_more(made, chunk)
            yield made

    def _say_more(self, made: ChatChoice, given: TextChunk | CompletionOutput) -> None:
        if given.logprobs is not None:
            most = self._body.top_logprobs or 0
            made.logprobs = chat_logprobs(self._tokenizer, given.token_ids, given.logprobs, most)
        if self._body.return_token_ids:
            made.token_ids = given.token_ids

    def _whole_choice(self, output: CompletionOutput) -> ChatChoice:
        reader = call_reader(self._body)
        message = _message([*reader.add(output.text), *reader.end()])
        made = ChatChoice(index=output.index, message=message, logprobs=None, **self._end(output, reader))
        self._say_more(made, output)
        return made

    def _end(self, output: CompletionOutput, reader: CallReader) -> dict[str, Any]:
        """How a choice has ended."""
        reason = output.finish_reason
        if reason == "stop" and reader.finish_reason is not None:
            reason = reader.finish_reason
        return {"finish_reason": reason, "stop_reason": output.stop_reason}


def _delta(piece: Piece) -> AnswerMessage:
    return AnswerMessage(content=piece) if isinstance(piece, str) else AnswerMessage(tool_calls=[piece])


def _message(pieces: list[Piece]) -> AnswerMessage:
    """The pieces of a message as one; a message that is all calls has no content."""
    calls = [piece for piece in pieces if not isinstance(piece, str)]
    content = "".join(piece for piece in pieces if isinstance(piece, str))
    if not calls:
        return AnswerMessage(role="assistant", content=content, refusal=None)
    joined = [
        ToolCall(id=each.id, type="function", function=_joined(each, calls)) for each in calls if each.id is not None
    ]
    return AnswerMessage(role="assistant", content=content or None, refusal=None, tool_calls=joined)


def _joined(first: ToolCall, pieces: list[ToolCall]) -> ToolFunction:
    """The function of a call that has come in pieces."""
    arguments = "".join(each.function.arguments or "" for each in pieces if each.index == first.index)
    return ToolFunction(name=first.function.name, arguments=arguments)
