"""/v1/completions and /v1/chat/completions."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mindgen.server.adapters.catalog import Adapter
from mindgen.server.answers import EventStream, json_response, while_connected
from mindgen.server.errors import ApiError, as_api_error
from mindgen.server.generation.answer_head import AnswerHead
from mindgen.server.generation.call import Order
from mindgen.server.generation.chat_answer import ChatAnswer
from mindgen.server.generation.completion_answer import CompletionAnswer
from mindgen.server.generation.prompts import TokenizedPrompt
from mindgen.server.generation.sampling import chat_params, completion_params
from mindgen.server.generation.tool_calls import asked_tools, tool_guide
from mindgen.server.protocol.body import ResponseBody
from mindgen.server.protocol.chat import ChatCompletionRequest, ChatCompletionResponse
from mindgen.server.protocol.completion import CompletionRequest, CompletionResponse
from mindgen.server.protocol.sampling import SamplingFields
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf
from mindgen.server.service import Service

Chunk = TypeVar("Chunk", bound=ResponseBody)
router = APIRouter()

_GUIDES = ("guided_json", "guided_regex", "guided_choice", "guided_grammar")


@router.post("/v1/completions", responses=answers(CompletionResponse))
async def complete(body: CompletionRequest, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Texts that go on where prompts end."""

    async def answer() -> Response:
        adapter = service.catalog.find(body.model, body.adapter_id)
        params = completion_params(body, service.model.defaults, service.deadline)
        prompts = await asyncio.to_thread(service.model.prompts.of_completion, body)
        waits = body.echo and body.logprobs is not None  # for what is said of the prompt
        order = Order(prompts, params, None if adapter is None else adapter.name, body.stream and not waits)
        writer = CompletionAnswer(_head("cmpl", service, adapter), body, prompts, service.model.llm.tokenizer)
        call = service.open(request, caller, adapter, order)
        if body.stream:
            return await _begun(service, writer.chunks(call))
        whole = writer.whole(await call.outputs())
        return json_response(whole, _headers(service, whole))

    return await _answered(service, request, body, answer)


@router.post("/v1/chat/completions", responses=answers(ChatCompletionResponse))
async def chat(body: ChatCompletionRequest, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """The next message of a conversation."""

    async def answer() -> Response:
        adapter = service.catalog.find(body.model, body.adapter_id)
        tools = asked_tools(body, service.model.templates)
        params = chat_params(body, service.model.defaults, service.deadline, tool_guide(body))
        prompt: TokenizedPrompt = await asyncio.to_thread(service.model.prompts.of_chat, body, tools)
        order = Order([prompt], params, None if adapter is None else adapter.name, body.stream)
        writer = ChatAnswer(_head("chatcmpl", service, adapter), body, prompt, service.model.llm.tokenizer)
        call = service.open(request, caller, adapter, order)
        if body.stream:
            return await _begun(service, writer.chunks(call))
        (output,) = await call.outputs()
        whole = writer.whole(output)
        return json_response(whole, _headers(service, whole))

    return await _answered(service, request, body, answer)


async def _answered(
    service: Service, request: Request, body: SamplingFields, answer: Callable[[], Awaitable[Response]]
) -> Response:
    """The answer, unless the client leaves before; what goes wrong names the client's own field."""
    try:
        return await while_connected(request.receive, answer())  # type: ignore[arg-type]
    except Exception as error:
        service.note_failure(error)
        found = as_api_error(error, type(body).model_fields)
        if found.param in _GUIDES and getattr(body, found.param) is None:
            found.param = next(
                (name for name in ("response_format", "structured_outputs", "tools") if getattr(body, name, None)), None
            )
        if isinstance(error, ApiError) or found.status < 500:
            raise found from error
        raise


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

    headers, on_gone = service.model.identity.headers(), service.metrics.client_left
    return EventStream(all_chunks(), service.config.send_timeout, headers, on_gone)


def _head(prefix: str, service: Service, adapter: Adapter | None) -> AnswerHead:
    identity = service.model.identity
    return AnswerHead.of(prefix, identity.name if adapter is None else adapter.name, identity)


def _headers(service: Service, whole: CompletionResponse | ChatCompletionResponse) -> dict[str, str]:
    headers = service.model.identity.headers() | {"X-Mindgen-Weight-Version": str(whole.weight_version)}
    digest = whole.adapter_digest
    return headers if digest is None else headers | {"X-Mindgen-Adapter-Digest": digest}
