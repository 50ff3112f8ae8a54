"""What trainers ask for: new weights, and memory that is given back for a while, as in vLLM."""

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.responses import Response

from mindgen.engine.update_options import InFlight
from mindgen.server.answers import json_response
from mindgen.server.protocol.weights import SleepState, UpdateWeightsRequest, WeightReport
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import AsAdmin, ServiceOf

router = APIRouter(dependencies=[AsAdmin])


@router.post("/update_weights", responses=answers(WeightReport))
async def update_weights(body: UpdateWeightsRequest, service: ServiceOf) -> Response:
    """Has the weights of a folder served, of the base model or of an adapter; answers when they are."""
    folder = await asyncio.to_thread(service.weight_roots.resolve, body.path)
    report = await service.weights.update(folder, body.target, body.version, body.options())
    return json_response(WeightReport(report))


@router.post("/sleep", responses=answers(None))
async def sleep(
    service: ServiceOf, level: Annotated[int, Query(ge=1, le=2)] = 1, in_flight: InFlight = "finish"
) -> Response:
    """Gives the KV cache's memory back (1), or that of the weights as well (2); requests are refused until wake_up."""
    await asyncio.to_thread(service.model.llm.sleep, level, in_flight)
    return Response()


@router.post("/wake_up", responses=answers(None))
async def wake_up(
    service: ServiceOf, tags: Annotated[list[Literal["weights", "kv_cache"]] | None, Query()] = None
) -> Response:
    """Has memory back: of the weights, the KV cache, or both."""
    await asyncio.to_thread(service.model.llm.wake_up, tags)
    return Response()


@router.get("/is_sleeping", responses=answers(SleepState))
async def is_sleeping(service: ServiceOf) -> Response:
    is_so = await asyncio.to_thread(lambda: service.model.llm.is_sleeping)
    return json_response(SleepState(is_sleeping=is_so))
