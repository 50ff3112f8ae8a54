"""The playground at `/`, and what it reads of the server beside OpenAI's API."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import version

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from mindgen.server.answers import json_response
from mindgen.server.playground.files import HEADERS, PAGE, PageFile, read_files
from mindgen.server.playground.state import live_state, overview
from mindgen.server.protocol.playground import LiveState, Overview
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf


def playground_router() -> APIRouter:
    """Serves the page's files from memory."""
    router, files = APIRouter(), read_files()

    @router.get("/", include_in_schema=False)
    async def page() -> Response:
        return _response(files, PAGE)

    @router.get("/playground/live", responses=answers(LiveState))
    async def live(service: ServiceOf, caller: CallerOf) -> Response:
        """What the batch and the queue are at."""
        replicas = await asyncio.to_thread(service.model.llm.replica_metrics)
        return json_response(live_state(service, list(replicas.values())))

    @router.get("/playground/overview", responses=answers(Overview))
    async def show_overview(service: ServiceOf, caller: CallerOf) -> Response:
        """The base model and all adapters, with what they have done."""
        listed = await asyncio.to_thread(service.model.llm.list_adapters)
        return json_response(overview(service, listed, version("mindgen")))

    @router.get("/playground/{name}", include_in_schema=False)
    async def file(name: str) -> Response:
        return _response(files, name)

    return router


def _response(files: Mapping[str, PageFile], name: str) -> Response:
    if name not in files:
        raise HTTPException(404)
    return Response(files[name].content, media_type=files[name].media_type, headers=HEADERS)
