"""/v1/models: the base model, and every adapter as a model whose parent it is."""

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from mindgen.adapters.pool_metrics import AdapterStatus
from mindgen.server.adapters.catalog import Adapter
from mindgen.server.answers import json_response
from mindgen.server.protocol.models import ModelCard, ModelList
from mindgen.server.routes.documented import answers
from mindgen.server.routes.state import CallerOf, ServiceOf
from mindgen.server.service import Service

router = APIRouter()


@router.get("/v1/models", responses=answers(ModelList))
async def models(service: ServiceOf, caller: CallerOf) -> Response:
    """All of them, the base model first."""
    statuses = await _statuses(service)
    cards = [await _base_card(service)]
    for each in service.catalog.adapters():
        status = statuses.get(each.name)
        cards.append(_card(service, each, status, None if status is None else service.digests.known(status)))
    return json_response(ModelList(object="list", data=cards))


@router.get("/v1/models/{name:path}", responses=answers(ModelCard))
async def model(name: str, service: ServiceOf, caller: CallerOf) -> Response:
    """One of them; names may have slashes."""
    found = service.catalog.find(name)
    if found is None:
        return json_response(await _base_card(service))
    status = (await _statuses(service)).get(found.name)
    digest = None if status is None else await service.digests.of(status)
    return json_response(_card(service, found, status, digest))


async def _statuses(service: Service) -> dict[str, AdapterStatus]:
    listed = await asyncio.to_thread(service.model.llm.list_adapters)
    return {status.adapter_id: status for status in listed}


async def _base_card(service: Service) -> ModelCard:
    identity, llm = service.model.identity, service.model.llm
    version, checksum = await asyncio.to_thread(lambda: (llm.weight_version, llm.weight_checksum))
    return ModelCard(
        id=identity.name, object="model", created=identity.created, owned_by="mindgen", root=identity.root,
        parent=None, max_model_len=llm.max_model_len, digest=identity.digest, weight_version=version,
        weight_checksum=checksum,
    )  # fmt: skip


def _card(service: Service, adapter: Adapter, status: AdapterStatus | None, digest: str | None) -> ModelCard:
    identity, most = service.model.identity, service.model.llm.max_model_len
    return ModelCard(
        id=adapter.name, object="model", created=adapter.created, owned_by="mindgen",
        root="" if status is None else str(status.folder), parent=identity.name, max_model_len=most,
        digest=digest, is_resident=status is not None and status.is_resident,
    )  # fmt: skip
