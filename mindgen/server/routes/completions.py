"""/v1/completions and /v1/chat/completions."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mindgen.server.answers import EventStream, json_response
from mindgen.server.generation.answer_head import AnswerHead, digest_headers
from mindgen.server.generation.call import Order
from mindgen.server.generation.chat_answer import ChatAnswer
from mindgen.server.generation.completion_answer import CompletionAnswer
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.generation.sampling import chat_params, completion_params
from mindgen.server.generation.tool_calls import asked_tools, tool_guide
from mindgen.server.protocol.body import AnsweredBy, ResponseBody
from mindgen.server.protocol.chat import ChatCompletionRequest, ChatCompletionResponse
from mindgen.server.protocol.completion import CompletionRequest, CompletionResponse
from mindgen.server.routes.answered import answered
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf
from mindgen.server.service import Service

Chunk = TypeVar("Chunk", bound=AnsweredBy)
router = APIRouter()


@router.post("/v1/completions", responses=answers(CompletionResponse))
async def complete(body: CompletionRequest, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Texts that go on where prompts end."""

    async def answer() -> Response:
        adapter = service.catalog.find(body.model, body.adapter_id)
        params = completion_params(body, service.model.defaults, service.deadline)
        prompts = await asyncio.to_thread(service.model.prompts.of_completion, body)
        waits = body.echo and body.logprobs is not None  # for what is said of the prompt
        name = None if adapter is None else adapter.name
        order = Order(prompts, [params] * len(prompts), name, body.stream and not waits)
        writer = CompletionAnswer(
            AnswerHead.of("cmpl", name, service.model.identity), body, prompts, service.model.llm.tokenizer
        )
        call = service.open(request, caller, adapter, order)
        if body.stream:
            return await _begun(service, writer.chunks(call))
        whole = writer.whole(await call.outputs())
        return json_response(whole, digest_headers(whole))

    return await answered(service, request, body, answer)


@router.post("/v1/chat/completions", responses=answers(ChatCompletionResponse))
async def chat(body: ChatCompletionRequest, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """The next message of a conversation."""

    async def answer() -> Response:
        adapter = service.catalog.find(body.model, body.adapter_id)
        tools = asked_tools(body, service.model.templates)
        params = chat_params(body, service.model.defaults, service.deadline, tool_guide(body))
        prompt: TokenizedPrompt = await asyncio.to_thread(service.model.prompts.of_chat, body, tools)
        name = None if adapter is None else adapter.name
        order = Order([prompt], [params], name, body.stream)
        writer = ChatAnswer(
            AnswerHead.of("chatcmpl", name, service.model.identity), body, prompt, service.model.llm.tokenizer
        )
        call = service.open(request, caller, adapter, order)
        if body.stream:
            return await _begun(service, writer.chunks(call))
        (output,) = await call.outputs()
        whole = writer.whole(output)
        return json_response(whole, digest_headers(whole))

    return await answered(service, request, body, answer)


async def _begun(service: Service, chunks: AsyncGenerator[Chunk, None]) -> EventStream:
    """A stream whose first chunk is there: what is refused before it has a status of its own."""
    first = await anext(chunks)

    async def all_chunks() -> AsyncGenerator[ResponseBody, None]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            service.note_failure(error)
            raise
        finally:
            await chunks.aclose()

    return EventStream(all_chunks(), service.config.send_timeout, digest_headers(first), service.metrics.client_left)
