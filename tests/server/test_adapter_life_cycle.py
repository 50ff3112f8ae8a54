"""Adapters are loaded and unloaded while others wait, and what is a folder's goes with the folder."""

import asyncio
import shutil

import pytest
from server_process import ROOT

from mindgen import LLM
from mindgen.server.adapters.catalog import Catalog
from mindgen.server.adapters.life_cycle import AdapterLifeCycle
from mindgen.server.adapters.watcher import AdapterWatcher
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
        await life_cycle.load("second", ADAPTERS / "A2", False)
        await life_cycle.unload("second")
        with pytest.raises(ApiError, match="is being unloaded"):
            await life_cycle.load("busy", ADAPTERS / "A2", False)
        await life_cycle.adopt("busy")
        assert not unloading.done() and llm.adapter_ids == ["busy"] and not catalog.has("busy")
        busy.leave()
        await unloading
        await life_cycle.load("busy", ADAPTERS / "A2", False)

    run(change())


@pytest.fixture
def watched(tmp_path):
    shutil.copytree(ADAPTERS / "A1", tmp_path / "one")
    return tmp_path


def watching(folder, life_cycle):
    said = []
    return asyncio.create_task(AdapterWatcher(str(folder), 0.01, life_cycle, said.append).run()), said


async def ended(task) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_folder_that_goes_leaves_what_others_have_loaded(life_cycle, catalog, watched, in_place):
    async def change():
        watcher, said = watching(watched, life_cycle)
        await until(lambda: catalog.has("one"))
        if not in_place:
            await life_cycle.unload("one")
        await life_cycle.load("one", ADAPTERS / "A2", in_place)
        shutil.rmtree(watched / "one")
        shutil.copytree(ADAPTERS / "A3", watched / "two")  # once this is there, the other has been seen to be gone
        await until(lambda: catalog.has("two"))
        shutil.rmtree(watched / "two")
        await until(lambda: not catalog.has("two") and not catalog.is_leaving("two"))
        assert catalog.has("one") and not said
        await ended(watcher)

    run(change())


def test_a_folder_that_changes_leaves_what_others_have_loaded(life_cycle, catalog, watched):
    async def change():
        watcher, said = watching(watched, life_cycle)
        await until(lambda: catalog.has("one"))
        await life_cycle.load("one", ADAPTERS / "A2", True)
        load = catalog.find("one").load
        (watched / "one/more").touch()
        await until(lambda: said)
        assert "already been loaded" in said[0] and catalog.has("one", load)
        await ended(watcher)

    run(change())


def test_new_weights_are_not_the_folders(life_cycle, catalog, llm):
    async def change():
        load = await life_cycle.load("one", ADAPTERS / "A1", False)
        llm.update_weights(ADAPTERS / "A2", "one")
        await life_cycle.adopt("one")
        await life_cycle.unload("one", load)
        assert catalog.has("one")

    run(change())


def test_the_folder_is_watched_while_requests_keep_what_has_gone(life_cycle, catalog, watched):
    async def change():
        watcher, said = watching(watched, life_cycle)
        await until(lambda: catalog.has("one"))
        one = catalog.find("one")
        one.enter()
        shutil.rmtree(watched / "one")
        await until(lambda: catalog.is_leaving("one"))
        shutil.copytree(ADAPTERS / "A2", watched / "two")
        shutil.copytree(ADAPTERS / "A2", watched / "one")
        await until(lambda: catalog.has("two"))
        assert not catalog.has("one")
        one.leave()
        await until(lambda: catalog.has("one"))
        assert not said
        await ended(watcher)

    run(change())
