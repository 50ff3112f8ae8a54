"""The client with veRL's names, against real servers and the model in this process."""

import asyncio
import json
import re
import subprocess
import sys

import pytest
from guarded_server import ADMIN
from server_process import ROOT

from mindgen import LLM, SamplingParams
from mindgen.errors import ConfigError
from mindgen.rlhf import GenerationClient
from mindgen.rlhf.generation_client import GenerationClientError

PROMPT = "An increasing sequence: six,"
DRAWN = {"temperature": 0.9, "top_k": 20, "top_p": 0.95, "seed": 4}


@pytest.fixture(scope="module")
def llm():
    llm = LLM("demo")
    yield llm
    llm.close()


def run(at, asking, **options):
    """What the coroutine makes of a client of these servers."""

    async def body():
        async with GenerationClient(at, **options) as client:
            return await asking(client)

    return asyncio.run(body())


@pytest.mark.parametrize("adapter", [None, "A1"])
def test_what_it_gives_is_what_the_model_has_drawn(server, llm, adapter):
    ids = llm.encode(PROMPT)
    params = SamplingParams(max_tokens=20, processed_logprobs=True, logprobs=0, **DRAWN)
    (expected,) = llm.generate([ids], params, adapter)
    asked = DRAWN | {"max_new_tokens": 20, "logprobs": True, "repetition_penalty": 1.0, "min_p": None}

    async def ask(client):
        return await client.generate("one", prompt_ids=ids, sampling_params=asked)

    found = run(server.address, ask, model=adapter)
    assert found.token_ids == expected.outputs[0].token_ids
    assert found.log_probs == expected.outputs[0].processed_logprobs
    assert (found.stop_reason, found.routed_experts, found.num_preempted) == ("completed", None, None)
    assert found.extra_fields["global_steps"] == 0
    assert found.extra_fields["weight_checksum"] == expected.weight_checksum
    assert found.extra_fields["adapter_digest"] == expected.adapter_digest


def test_without_a_limit_it_may_fill_the_context(server, llm):
    ids = llm.encode(PROMPT)

    async def ask(client):
        greedy = {"temperature": 0, "ignore_eos": True}
        whole = await client.generate("one", prompt_ids=ids, sampling_params=greedy)
        cut = await client.generate("one", prompt_ids=ids, sampling_params=greedy | {"max_tokens": 10**6})
        return whole, cut

    whole, cut = run([server.address + "/"], ask)
    assert len(ids) + len(whole.token_ids) == llm.max_model_len and whole.log_probs is None
    assert cut.token_ids == whole.token_ids and whole.extra_fields["finish_reason"] == "length"


def test_a_conversation_stays_where_it_is(server, replicated, llm):
    """Its second turn finds the first one in the cache; and new ones are shared out."""
    ids, at = llm.encode(PROMPT), [server, replicated.server]
    first, second = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}, {"temperature": 0, "max_tokens": 2}

    async def ask(client):
        async def converse(number):
            name = f"conversation-{number}"
            turn = await client.generate(name, prompt_ids=[*ids, number + 3], sampling_params=first)
            grown = [*ids, number + 3, *turn.token_ids]
            return await client.generate(name, prompt_ids=grown, sampling_params=second)

        return await asyncio.gather(*(converse(number) for number in range(12)))

    run([each.address for each in at], ask)
    lines = [[json.loads(line) for line in each.wait_for_log('"conversation-', 12)] for each in at]
    names = [[line["request_id"] for line in own] for own in lines]
    assert sorted(map(len, names)) == [12, 12] and not {*names[0]} & {*names[1]}
    assert all(name.count(each) == 2 for name in names for each in name)
    assert all(line["cached_tokens"] > 16 for line in lines[0] if line["completion_tokens"] == 2)


def test_a_call_that_is_cancelled_is_called_off(server, llm):
    gone = server.metric("mindgen:client_disconnects_total")

    async def ask(client):
        long = {"temperature": 2.0, "ignore_eos": True}
        calls = [
            asyncio.ensure_future(client.generate(str(each), prompt_ids=llm.encode("One,"), sampling_params=long))
            for each in range(8)
        ]
        while await asyncio.to_thread(server.metric, "vllm:num_requests_running") < 8:
            await asyncio.sleep(0)
        for call in calls:
            call.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*calls, return_exceptions=True)
        )

    run(server.address, ask)
    server.wait_for(lambda: server.metric("mindgen:requests_open") == 0)
    assert server.metric("mindgen:client_disconnects_total") == gone + 8


def test_a_full_server_is_asked_again(guarded, llm):
    """That computes two at once, and has room for one more."""

    async def ask(client):
        greedy = {"temperature": 0, "max_tokens": 40, "ignore_eos": True}
        calls = (client.generate(str(each), prompt_ids=llm.encode("One,"), sampling_params=greedy) for each in range(6))
        return await asyncio.gather(*calls)

    refused = guarded.server.metric("mindgen:requests_refused_total")
    found = run(guarded.server.address, ask, api_key=ADMIN)
    assert len(found) == 6 and len({tuple(each.token_ids) for each in found}) == 1
    assert guarded.server.metric("mindgen:requests_refused_total") > refused


@pytest.mark.parametrize(
    ("changes", "status", "message"),
    [
        ({"prompt_ids": []}, 400, "prompt"),
        ({"prompt_ids": [9] * 600}, 400, "maximum context length"),
        ({"sampling_params": {"temperatur": 1}}, 400, "temperatur"),
        ({"sampling_params": {"top_p": 2}}, 400, "top_p"),
        ({"sampling_params": {"n": 2}}, None, "call n times"),
        ({"image_data": [b"x"]}, None, "reads text"),
    ],
)
def test_what_is_refused(server, changes, status, message):
    async def ask(client):
        return await client.generate("one", **({"prompt_ids": [5, 6], "sampling_params": {}} | changes))

    with pytest.raises(GenerationClientError, match=message) as found:
        run(server.address, ask)
    assert found.value.status == status


def test_a_server_that_is_gone(llm):
    async def ask(client):
        return await client.generate("one", prompt_ids=[5], sampling_params={})

    with pytest.raises(GenerationClientError, match="127.0.0.1:9") as found:
        run("http://127.0.0.1:9", ask)
    assert found.value.status is None
    with pytest.raises(ConfigError, match="address"):
        run([], ask)


def test_the_page_says_how(server):
    """And a trainer's process needs no MindSpore for it."""
    page = (ROOT / "docs/rlhf.md").read_text()
    (program,) = re.findall(r"```python\n(import asyncio.*?)```", page, re.DOTALL)
    program = program.replace("http://127.0.0.1:8000", server.address)
    program += "\nimport sys\nassert not {'mindspore', 'torch'} & sys.modules.keys()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\[\d+(, \d+)*\] \[-?[\d.e-]+(, -?[\d.e-]+)*\] completed 0\n", done.stdout), done.stdout
