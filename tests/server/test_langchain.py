"""LangChain's ChatOpenAI, unchanged, with adapters as its models."""

import asyncio
from typing import Literal

import openai
import pytest
from guarded_server import ADMIN
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

ONE = "An increasing sequence: one,"
NAMES = ("demo", "A1", "A2", "A3")


class Count(BaseModel):
    """A number that was counted to."""

    number: int


class Weather(BaseModel):
    """Of a city."""

    city: Literal["Berlin", "Paris"]


@pytest.fixture(scope="module")
def chat(server):
    def made(name: str, **options) -> ChatOpenAI:
        return ChatOpenAI(
            model=name, base_url=f"{server.address}/v1", api_key="any", max_retries=0, max_tokens=12, **options
        )

    return made


@pytest.fixture(scope="module")
def expected(client):
    """What OpenAI's own client gets."""

    def answer(name: str):
        asked = {"model": name, "messages": [{"role": "user", "content": ONE}], "max_tokens": 12}
        return client.chat.completions.create(**asked)

    return {name: answer(name) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_invoke_and_stream(chat, expected, name):
    known = expected[name]
    message = chat(name).invoke(ONE)
    assert message.content == known.choices[0].message.content
    assert message.response_metadata["model_name"] == name
    assert message.response_metadata["finish_reason"] == known.choices[0].finish_reason
    assert message.usage_metadata["total_tokens"] == known.usage.total_tokens
    first, *others = chat(name, stream_usage=True).stream(ONE)
    for each in others:
        first += each
    assert first.content == message.content and len(others) > 4
    assert first.usage_metadata["output_tokens"] == known.usage.completion_tokens


def test_logprobs(chat, expected):
    message = chat("A1", logprobs=True, top_logprobs=2).invoke(ONE)
    content = message.response_metadata["logprobs"]["content"]
    assert len(content) == message.usage_metadata["output_tokens"]
    assert all(len(each["top_logprobs"]) == 2 for each in content)
    text = b"".join(bytes(each["bytes"]) for each in content).decode()
    assert text.removesuffix("</s>") == expected["A1"].choices[0].message.content


def test_asynchronously_and_all_at_once(chat, expected):
    async def answers():
        streamed = [chunk.content async for chunk in chat("A1").astream(ONE)]
        whole = await asyncio.gather(*(chat(name).ainvoke(ONE) for name in NAMES * 2))
        batch = await chat("A3").abatch([ONE] * 3)
        count = await counting(chat).ainvoke(ONE)
        return "".join(streamed), [each.content for each in whole], [each.content for each in batch], count

    streamed, whole, batch, count = asyncio.run(answers())  # one loop for all, as the clients of models are shared
    known = {name: answer.choices[0].message.content for name, answer in expected.items()}
    assert streamed == known["A1"]
    assert whole == [known[name] for name in NAMES] * 2 and batch == [known["A3"]] * 3
    assert count == counting(chat).invoke(ONE)


def test_a_chain(chat, expected):
    chain = ChatPromptTemplate.from_messages([("human", "An increasing sequence: {number},")]) | chat("A1")
    assert chain.invoke({"number": "one"}).content == expected["A1"].choices[0].message.content


def counting(chat):
    return chat("demo").with_structured_output(Count, method="json_schema", strict=True)


def test_structured_output(chat):
    assert isinstance(counting(chat).invoke(ONE), Count)


def test_tools(guarded):
    model = ChatOpenAI(
        model="demo", base_url=f"{guarded.server.address}/v1", api_key=ADMIN, max_retries=0, max_tokens=60
    )
    bound = model.bind_tools([Weather], tool_choice="Weather", strict=True)
    message = bound.invoke(ONE)
    (call,) = message.tool_calls
    assert call["name"] == "Weather" and Weather(**call["args"])
    conversation = [HumanMessage(ONE), message, ToolMessage("sun", tool_call_id=call["id"])]
    assert isinstance(model.invoke(conversation).content, str)


def test_a_model_that_there_is_not(chat):
    with pytest.raises(openai.NotFoundError) as found:
        chat("nobody").invoke(ONE)
    assert found.value.code == "model_not_found"
