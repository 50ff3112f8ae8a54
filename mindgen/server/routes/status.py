"""How the server is: for load balancers, for Prometheus, for people."""

import asyncio
from importlib.metadata import version

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import JSONResponse, Response

from mindgen.server.errors import unavailable
from mindgen.server.observe.metrics import engine_families, server_families
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import ServiceOf
from mindgen.server.service import Service

router = APIRouter()


@router.get("/health", responses=answers(None, 503))
async def health(service: ServiceOf) -> Response:
    """Whether the model can answer; if not, it will not come back."""
    if service.failure is not None:
        raise unavailable(service.failure, "engine_ended")
    return Response()


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
    name = service.model.identity.name
    engines = service.model.llm.replica_metrics()
    running = {each.name: each.num_users for each in service.catalog.adapters() if each.num_users}
    gate = service.gate
    shown = dict(sorted(running.items(), key=lambda item: -item[1])[: service.config.adapter_labels])
    server = server_families(name, gate.num_open, gate.num_refused, shown, engines[0].adapters.slots)
    return service.metrics.page(lambda: [*engine_families(name, engines), *server])
