"""Lists say what adapters are before anybody has used them."""

import asyncio
import shutil

import pytest
from server_process import ROOT

from mindgen import LLM
from mindgen.adapters.formats.peft import read_adapter
from mindgen.server.adapters.digests import AdapterDigests

ADAPTERS = ROOT / "adapters"


@pytest.fixture
def llm(tmp_path):
    shutil.copytree(ADAPTERS / "A2", tmp_path / "two")
    shutil.copytree(ADAPTERS / "A3", tmp_path / "broken")
    (tmp_path / "broken/adapter_model.safetensors").write_bytes(b"no tensors")
    llm = LLM("demo", {"one": ADAPTERS / "A1", "two": tmp_path / "two", "broken": tmp_path / "broken"})
    yield llm
    llm.close()


def test_of_adapters_that_nobody_has_used(llm, tmp_path):
    async def read():
        digests, statuses = AdapterDigests(llm.list_adapters), llm.list_adapters()
        assert [status.digest for status in statuses] == [None] * 3 == [digests.known(each) for each in statuses]
        assert await digests.of(statuses[0]) == read_adapter(ADAPTERS / "A1").digest == digests.known(statuses[0])
        await digests.read_all()
        expected = [read_adapter(ADAPTERS / name).digest for name in ("A1", "A2")]
        assert [digests.known(each) for each in statuses] == [*expected, None]
        llm.add_adapter("two", ADAPTERS / "A3")
        changed = llm.list_adapters()[1]
        assert digests.known(changed) is None
        assert await digests.of(changed) == read_adapter(ADAPTERS / "A3").digest
        (answer,) = llm.generate(["One,"], adapter_ids="one")
        assert answer.adapter_digest == expected[0] == digests.known(llm.list_adapters()[0])

    asyncio.run(read())


def test_the_server_lists_them(server):
    """Whoever has asked before: the digests are those of the files."""
    expected = {name: read_adapter(ADAPTERS / name).digest for name in ("A1", "A2", "A3")}
    with server.http() as http:
        assert {name: http.get(f"/v1/models/{name}").json()["digest"] for name in expected} == expected

        def listed() -> list[dict]:
            models = {each["id"]: each["digest"] for each in http.get("/v1/models").json()["data"] if each["parent"]}
            shown = {each["name"]: each["digest"] for each in http.get("/playground/overview").json()["adapters"]}
            return [models, shown]

        server.wait_for(lambda: listed() == [expected] * 2)
