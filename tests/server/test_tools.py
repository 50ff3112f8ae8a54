"""Functions that a model calls."""

import json

import openai
import pytest
from guarded_server import ADMIN

from mindgen.server.generation.tool_calls import call_reader
from mindgen.server.protocol.chat import ChatCompletionRequest

PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": ["Berlin", "Paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "of a city", "parameters": PARAMETERS}}
    for name in ("weather", "time")
]
MESSAGES = [{"role": "user", "content": "Berlin is"}]
NAMED = {"type": "function", "function": {"name": "time"}}


def pieces(text: str, size: int, **more) -> tuple[str, list[tuple[str, str]], str | None]:
    """The content, the calls and the finish reason of a text that comes in pieces."""
    body = ChatCompletionRequest.model_validate({"messages": MESSAGES, "tools": TOOLS, **more})
    reader = call_reader(body)
    found = [each for place in range(0, len(text), size) for each in reader.add(text[place : place + size])]
    found += reader.end()
    calls = [each for each in found if not isinstance(each, str)]
    content = "".join(each for each in found if isinstance(each, str))
    names = [(each.function.name, each.function.arguments) for each in calls]
    assert [each.index for each in calls] == (
        list(range(len(calls))) if "tool_choice" not in more else [0] * len(calls)
    )
    return content, names, reader.finish_reason


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        ("plain < text <tool", "plain < text <tool", []),
        (
            'I look. <tool_call>\n{"name": "weather", "arguments": {"city": "Berlin"}}\n</tool_call>',
            "I look. ",
            [("weather", '{"city": "Berlin"}')],
        ),
        (
            '<tool_call>{"name": "a", "arguments": {}}</tool_call>,'
            '<tool_call>{"name": "b", "parameters": {"x": "北"}}</tool_call>',
            ",",
            [("a", "{}"), ("b", '{"x": "北"}')],
        ),
        ("<tool_call>no call</tool_call>!", "<tool_call>no call</tool_call>!", []),
        ('<tool_call>{"name": "a"', '<tool_call>{"name": "a"', []),
        ("<<tool_call>[]</tool_call>", "<<tool_call>[]</tool_call>", []),
    ],
)
def test_calls_in_a_text(text, content, calls, size):
    assert pieces(text, size) == (content, calls, "tool_calls" if calls else None)


def test_a_named_function_is_called(guarded):
    client = guarded.server.client(ADMIN)
    asked = {"model": "demo", "messages": MESSAGES, "tools": TOOLS, "tool_choice": NAMED, "max_tokens": 60}
    answer = client.chat.completions.create(**asked).choices[0]
    (call,) = answer.message.tool_calls
    assert (call.function.name, call.type, answer.message.content) == ("time", "function", None)
    assert json.loads(call.function.arguments)["city"] in ("Berlin", "Paris")
    deltas = [each.choices[0].delta for each in client.chat.completions.create(**asked, stream=True)]
    streamed = [call for delta in deltas for call in delta.tool_calls or []]
    assert streamed[0].id and streamed[0].function.name == "time" and {each.index for each in streamed} == {0}
    assert "".join(each.function.arguments for each in streamed) == call.function.arguments


def test_some_function_is_called(guarded):
    client = guarded.server.client(ADMIN)
    asked = {"model": "demo", "messages": MESSAGES, "tools": TOOLS, "tool_choice": "required", "max_tokens": 120}
    asked["parallel_tool_calls"] = False
    newline = guarded.server.http(ADMIN).post("/tokenize", json={"prompt": "\n"}).json()["tokens"][-1]
    asked["logit_bias"] = {str(newline): -100}  # or lines and indentation might be all that comes
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    for call in answer.message.tool_calls:
        assert call.function.name in ("weather", "time") and json.loads(call.function.arguments).keys() == {"city"}
    chunks = list(client.chat.completions.create(**asked, stream=True))
    streamed = [call.function for each in chunks for call in each.choices[0].delta.tool_calls or []]
    assert [(each.name, each.arguments) for each in streamed] == [
        (each.function.name, each.function.arguments) for each in answer.message.tool_calls
    ]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_templates_see_tools_and_calls(guarded):
    http = guarded.server.http(ADMIN)
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x": "Paris"}'}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "is"}]
    tokens = http.post("/tokenize", json={"messages": messages, "tools": TOOLS[:1]}).json()["tokens"]
    text = http.post("/detokenize", json={"tokens": tokens}).json()["prompt"]
    assert "weather <tool_call> Paris is" in text
    call["function"]["arguments"] = "[1]"
    assert http.post("/tokenize", json={"messages": messages}).json()["error"]["param"] == "messages"


def test_wrong_choices(guarded):
    client = guarded.server.client(ADMIN)
    with pytest.raises(openai.BadRequestError) as found:
        client.chat.completions.create(model="demo", messages=MESSAGES, tools=TOOLS, parallel_tool_calls=False)
    assert found.value.param == "parallel_tool_calls"
    for choice, more in (
        ({"type": "function", "function": {"name": "nobody"}}, {}),
        ("required", {"response_format": {"type": "json_object"}}),
    ):
        with pytest.raises(openai.BadRequestError) as found:
            client.chat.completions.create(model="demo", messages=MESSAGES, tools=TOOLS, tool_choice=choice, **more)
        assert found.value.param == "tool_choice"
