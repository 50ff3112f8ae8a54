"""How the server is: for load balancers, for Prometheus, for people."""

import asyncio
from importlib.metadata import version
from itertools import chain

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from mindgen.server.answers import json_response
from mindgen.server.errors import unavailable, without_log
from mindgen.server.observe.metrics import engine_families, replica_families, server_families
from mindgen.server.protocol.health import HealthState, LostReplica
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import ServiceOf
from mindgen.server.service import Service

router = APIRouter()


@router.get("/health", responses=answers(HealthState, 503))
async def health(service: ServiceOf) -> Response:
    """Whether the model can answer; if not, it will not come back. Replicas that have ended may."""
    if service.failure is not None:
        raise unavailable(service.failure, "engine_ended")
    found = service.model.llm.replica_state
    lost = [LostReplica(replica=number, reason=without_log(why)) for number, why in found.lost.items()]
    return json_response(HealthState(status="degraded" if lost else "ok", replicas=found.wanted, lost=lost))


@router.get("/ready", responses=answers(None, 503))
async def ready(service: ServiceOf) -> Response:
    """Whether requests are to be sent here: the model can answer, is awake, and the queue has room."""
    if service.gate.is_full:
        raise unavailable("the queue is full", "queue_full")
    if service.failure is None and await asyncio.to_thread(lambda: service.model.llm.is_sleeping):
        raise unavailable("the model sleeps: POST /wake_up first", "asleep")
    return await health(service)


@router.get("/version")
async def show_version() -> Response:
    return JSONResponse({"version": version("mindgen")})


@router.get("/metrics", responses=answers(None, 503))
async def metrics(service: ServiceOf) -> Response:
    """In Prometheus' text form."""
    page = await asyncio.to_thread(_page, service)
    return Response(page, media_type=CONTENT_TYPE_LATEST)


def _page(service: Service) -> bytes:
    name, gate, llm = service.model.identity.name, service.gate, service.model.llm
    engines = llm.replica_metrics()
    running = service.busiest(adapter for each in engines.values() for adapter in each.running_adapters)
    waiting = service.busiest(adapter for each in engines.values() for adapter in each.waiting_adapters)
    families = (
        engine_families(name, engines),
        replica_families(name, llm.replica_state),
        server_families(name, gate.num_open, gate.num_refused, (running, waiting), engines[0].adapters.slots),
    )
    return service.metrics.page(lambda: chain(*families))
