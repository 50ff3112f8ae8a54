"""Adapters that are loaded and unloaded while the server runs, in vLLM's form."""

import asyncio

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from mindgen.server.protocol.models import LoadAdapterRequest, UnloadAdapterRequest
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import AsAdmin, ServiceOf

router = APIRouter(dependencies=[AsAdmin])


@router.post("/v1/load_lora_adapter", responses=answers(None), response_class=PlainTextResponse)
async def load(body: LoadAdapterRequest, service: ServiceOf) -> Response:
    """Gives a name to an adapter below one of the server's roots, once it has answered."""
    folder = await asyncio.to_thread(service.roots.resolve, body.lora_path)
    await service.adapters.load(body.lora_name, folder, body.load_inplace)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/v1/unload_lora_adapter", responses=answers(None), response_class=PlainTextResponse)
async def unload(body: UnloadAdapterRequest, service: ServiceOf) -> Response:
    """Takes a name away; its requests end first, and then its memory is given back."""
    await service.adapters.unload(body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
