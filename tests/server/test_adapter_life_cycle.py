"""Adapters are loaded and unloaded while others wait, and what is a folder's goes with the folder."""

import asyncio

import pytest
from server_process import ROOT

from mindgen import LLM
from mindgen.server.adapters.catalog import Catalog
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.errors import ApiError
from mindgen.server.observe.metrics import ServerMetrics

ADAPTERS = ROOT / "adapters"
SECONDS = 60  # after which something that should not be waited for was


@pytest.fixture(scope="module")
def llm():
    llm = LLM("demo", {})
    yield llm
    llm.close()


@pytest.fixture
def catalog():
    return Catalog("demo", [])


@pytest.fixture
def life_cycle(llm, catalog):
    yield AdapterLifeCycle(llm, catalog, ServerMetrics("demo", 3))
    for name in llm.adapter_ids:
        llm.remove_adapter(name)


def run(coroutine) -> None:
    asyncio.run(asyncio.wait_for(coroutine, SECONDS))


async def until(is_so) -> None:
    while not is_so():
        await asyncio.sleep(0.01)


def test_others_do_not_wait_for_the_requests_of_what_is_unloaded(life_cycle, catalog, llm):
    async def change():
        await life_cycle.load("busy", ADAPTERS / "A1", False)
        busy = catalog.find("busy")
        busy.enter()
        unloading = asyncio.create_task(life_cycle.unload("busy"))
        await until(lambda: not catalog.has("busy"))
        await life_cycle.load("other", ADAPTERS / "A2", False)
        await life_cycle.unload("other")
        with pytest.raises(ApiError, match="is being unloaded"):
            await life_cycle.load("busy", ADAPTERS / "A2", False)
        await life_cycle.adopt("busy")
        assert not unloading.done() and llm.adapter_ids == ["busy"] and not catalog.has("busy")
        busy.leave()
        await unloading
        await life_cycle.load("busy", ADAPTERS / "A2", False)

    run(change())
