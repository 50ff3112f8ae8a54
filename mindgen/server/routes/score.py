"""/v1/score: how likely given texts are after given others."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from mindgen.server.answers import json_response
from mindgen.server.generation.answer_head import AnswerHead, digest_headers
from mindgen.server.generation.score_answer import score_order, score_response
from mindgen.server.protocol.score import ScoreRequest, ScoreResponse
from mindgen.server.routes.answered import answered
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf

router = APIRouter()


@router.post("/v1/score", responses=answers(ScoreResponse))
async def score(body: ScoreRequest, request: Request, service: ServiceOf, caller: CallerOf) -> Response:
    """Log-probabilities of texts, token by token, and their sums."""

    async def answer() -> Response:
        adapter = service.catalog.find(body.model, body.adapter_id)
        name = None if adapter is None else adapter.name
        order = await asyncio.to_thread(score_order, body, service.model, name, service.deadline)
        call = service.open(request, caller, adapter, order)
        whole = score_response(AnswerHead.of("score", name, service.model.identity), await call.outputs())
        return json_response(whole, digest_headers(whole))

    return await answered(service, request, body, answer)
