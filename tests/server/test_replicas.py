"""Several replicas behind one port."""

import asyncio
import re

import openai
import pytest

PROMPT = "An increasing sequence: six,"


def test_they_share_the_requests(replicated, client):
    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{replicated.server.address}/v1", api_key="any") as asking:
            asked = [
                asking.completions.create(model=name, prompt=PROMPT, max_tokens=12) for name in ("a/b", "A1", "A3") * 8
            ]
            return [answer.choices[0].text for answer in await asyncio.gather(*asked)]

    names = ("demo", "A1", "A3")
    alone = [client.completions.create(model=name, prompt=PROMPT, max_tokens=12).choices[0].text for name in names]
    assert asyncio.run(texts()) == alone * 8
    page = replicated.server.http().get("/metrics").text
    counts = re.findall(r'^vllm:generation_tokens_total\{engine="(\d)",.*\} (\S+)$', page, re.MULTILINE)
    assert [number for number, _ in counts] == ["0", "1"] and all(float(count) > 50 for _, count in counts)


def test_a_name_may_have_slashes(replicated):
    assert replicated.server.client().models.retrieve("a/b").id == "a/b"


def test_adapters_come_and_go_in_all(replicated):
    assert replicated.load("new", "A2").status_code == 200
    asking = replicated.server.client()
    texts = {asking.completions.create(model="new", prompt=PROMPT, max_tokens=6).choices[0].text for _ in range(6)}
    assert len(texts) == 1
    assert replicated.unload("new").status_code == 200
    with pytest.raises(openai.NotFoundError):
        asking.completions.create(model="new", prompt=PROMPT, max_tokens=1)
