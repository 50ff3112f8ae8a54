"""/tokenize and /detokenize, in vLLM's form, and /v1/embeddings, which no model here is made for."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from mindgen.server.answers import json_response
from mindgen.server.errors import ApiError, bad_request
from mindgen.server.generation.logprobs import token_text
from mindgen.server.protocol.models import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf
from mindgen.system.checks import to_token_ids

router = APIRouter()


@router.post("/tokenize", responses=answers(TokenizeResponse))
async def tokenize(body: TokenizeRequest, service: ServiceOf, caller: CallerOf) -> Response:
    """The token ids of a prompt, or of what the chat template makes of messages."""
    service.gate.count(caller)
    service.catalog.find(body.model)
    llm = service.model.llm
    tokens = await asyncio.to_thread(service.model.prompts.of_tokenize, body)
    made = TokenizeResponse(count=len(tokens), max_model_len=llm.max_model_len, tokens=tokens)
    if body.return_token_strs:
        made.token_strs = [token_text(llm.tokenizer, token) for token in tokens]
    return json_response(made)


@router.post("/detokenize", responses=answers(DetokenizeResponse))
async def detokenize(body: DetokenizeRequest, service: ServiceOf, caller: CallerOf) -> Response:
    """The text of token ids, special tokens included."""
    service.gate.count(caller)
    service.catalog.find(body.model)
    if any(not 0 <= token < service.model.vocab_size for token in body.tokens):
        raise bad_request(f"tokens are below {service.model.vocab_size}, the vocabulary's size", param="tokens")
    tokens = to_token_ids("tokens", body.tokens)
    text = await asyncio.to_thread(service.model.llm.tokenizer.decode, tokens, False)
    return json_response(DetokenizeResponse(prompt=text))


@router.post("/v1/embeddings", responses=answers(None, 404))
async def embeddings(caller: CallerOf) -> Response:
    """There are none."""
    message = "The model generates text, and has no embeddings: none of the served models is made for them"
    raise ApiError(404, "invalid_request_error", message, code="not_supported")
