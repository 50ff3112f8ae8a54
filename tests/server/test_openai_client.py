"""OpenAI's own client parses what the server answers."""

import asyncio
import json

import openai
import pytest

PROMPT = "An increasing sequence: one, two,"
MESSAGES = [{"role": "user", "content": "An increasing sequence: one,"}]


def strict(answer):
    """The answer, which has what the client's types declare, by their types."""
    return type(answer).model_validate(answer.model_dump(exclude_unset=True))


def test_models(client):
    base, *adapters = client.models.list().data
    assert (base.id, base.parent, base.object) == ("demo", None, "model") and base.digest
    assert {each.id for each in adapters} >= {"A1", "A2", "A3"}
    assert all(each.parent == "demo" for each in adapters)
    again = client.models.retrieve("A1")
    assert again.id == "A1" and again.created == next(each.created for each in adapters if each.id == "A1")


def test_completion(client):
    answer = strict(client.completions.create(model="demo", prompt=PROMPT, max_tokens=4))
    assert answer.choices[0].text == " three, four,"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4
    assert answer.system_fingerprint == f"mindgen-{answer.model_digest}" and answer.weight_version == 0


def test_an_adapter_is_a_model(client):
    texts = {
        name: client.completions.create(model=name, prompt="An increasing sequence: six,", max_tokens=8)
        for name in ("demo", "A1", "A3")
    }
    assert "七" in texts["A1"].choices[0].text and "seven" in texts["demo"].choices[0].text
    assert "VII" in texts["A3"].choices[0].text
    assert texts["A1"].adapter_digest and texts["demo"].adapter_digest is None
    assert texts["A1"].model_digest == texts["demo"].model_digest
    assert client.models.retrieve("A1").digest == texts["A1"].adapter_digest
    by_field = client.completions.create(
        model="demo", prompt="An increasing sequence: six,", max_tokens=8, extra_body={"adapter_id": "A1"}
    )
    assert by_field.choices[0].text == texts["A1"].choices[0].text and by_field.model == "A1"


def test_the_digests_are_headers(client):
    raw = client.completions.with_raw_response.create(model="A1", prompt=PROMPT, max_tokens=1)
    answer = raw.parse()
    assert raw.headers["x-mindgen-model-digest"] == answer.model_digest
    assert raw.headers["x-mindgen-adapter-digest"] == answer.adapter_digest
    assert raw.headers["x-mindgen-weight-checksum"] == answer.weight_checksum
    assert raw.headers["x-mindgen-weight-version"] == str(answer.weight_version)


def test_every_form_of_a_prompt(server, client):
    ids = server.http().post("/tokenize", json={"model": "demo", "prompt": PROMPT}).json()["tokens"]
    expected = client.completions.create(model="demo", prompt=PROMPT, max_tokens=4).choices[0].text
    for prompt in (ids, [PROMPT], [ids], [PROMPT, PROMPT], [ids, ids]):
        answer = client.completions.create(model="demo", prompt=prompt, max_tokens=4)
        assert [each.text for each in answer.choices] == [expected] * len(answer.choices)
        assert len(answer.choices) == (2 if len(prompt) == 2 else 1)
        assert answer.usage.prompt_tokens == len(ids) * len(answer.choices)


def test_choices_are_numbered_by_prompt_and_output(client):
    answer = client.completions.create(
        model="demo", prompt=[PROMPT, "Berlin is"], n=2, temperature=1.0, seed=3, max_tokens=6
    )
    assert [each.index for each in answer.choices] == [0, 1, 2, 3]
    again = client.completions.create(
        model="demo", prompt=[PROMPT, "Berlin is"], n=2, temperature=1.0, seed=3, max_tokens=6
    )
    assert [each.text for each in again.choices] == [each.text for each in answer.choices]


def test_chat(client):
    answer = strict(client.chat.completions.create(model="A1", messages=MESSAGES, max_completion_tokens=6))
    message = answer.choices[0].message
    assert message.role == "assistant" and "二" in message.content and message.refusal is None
    assert answer.object == "chat.completion" and answer.choices[0].logprobs is None


def test_content_may_be_in_parts(client):
    parts = [{"type": "text", "text": MESSAGES[0]["content"]}]
    whole = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=5)
    answer = client.chat.completions.create(model="demo", messages=[{"role": "user", "content": parts}], max_tokens=5)
    assert answer.choices[0].message.content == whole.choices[0].message.content


def test_stream_of_a_chat(client):
    chunks = list(client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=5, stream=True))
    for chunk in map(strict, chunks):
        assert (chunk.id, chunk.created, chunk.model) == (chunks[0].id, chunks[0].created, "demo")
        assert chunk.object == "chat.completion.chunk" and "usage" not in chunk.model_fields_set
    assert chunks[0].choices[0].delta.role == "assistant" and chunks[0].choices[0].delta.content == ""
    assert [each.choices[0].finish_reason for each in chunks] == [None] * (len(chunks) - 1) + ["length"]


@pytest.mark.parametrize("model", ["demo", "A1"])
def test_usage_of_a_stream(client, model):
    options = {"include_usage": True}
    chunks = list(
        client.completions.create(model=model, prompt=PROMPT, max_tokens=4, stream=True, stream_options=options)
    )
    *others, last = chunks
    assert last.choices == [] and last.id == others[0].id and last.model == model
    assert last.usage.completion_tokens == 4 and last.usage.total_tokens == last.usage.prompt_tokens + 4
    assert all(each.usage is None and "usage" in each.model_fields_set for each in others)
    options["continuous_usage_stats"] = True
    chunks = list(
        client.completions.create(model=model, prompt=PROMPT, max_tokens=4, stream=True, stream_options=options)
    )
    counts = [each.usage.completion_tokens for each in chunks]
    assert counts == sorted(counts) and counts[-1] == 4


def test_the_asynchronous_client(server):
    async def texts() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.address}/v1", api_key="any", max_retries=0) as client:

            async def one(model: str) -> str:
                stream = await client.completions.create(model=model, prompt=PROMPT, max_tokens=6, stream=True)
                return "".join([chunk.choices[0].text async for chunk in stream])

            return list(await asyncio.gather(*(one(name) for name in ("demo", "A1", "A2", "A3") * 4)))

    found = asyncio.run(texts())
    assert found[:4] * 4 == found and len(set(found[:4])) == 4


def test_json_follows_its_schema(client):
    schema = {
        "type": "object",
        "properties": {"number": {"type": "integer"}},
        "required": ["number"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="demo",
        messages=MESSAGES,
        max_tokens=40,
        response_format={"type": "json_schema", "json_schema": {"name": "count", "schema": schema, "strict": True}},
    )
    (number,) = json.loads(answer.choices[0].message.content).values()
    assert isinstance(number, int)
    answer = client.chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=100, response_format={"type": "json_object"}, temperature=0
    )
    content, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert content.startswith("{") and (reason == "length" or isinstance(json.loads(content), dict))


@pytest.mark.parametrize(
    "extra",
    [
        {"guided_choice": ["yes", "no"]},
        {"guided_regex": "yes|no"},
        {"guided_grammar": 'root ::= "yes" | "no"'},
        {"guided_json": {"enum": ["yes", "no"]}},
        {"structured_outputs": {"choice": ["yes", "no"]}},
        {"structured_outputs": {"json": {"enum": ["yes", "no"]}}},
    ],
)
def test_guides(client, extra):
    answer = client.completions.create(model="demo", prompt=PROMPT, max_tokens=12, extra_body=extra)
    assert answer.choices[0].text.strip('"') in ("yes", "no")


def test_what_changes_the_choice_of_tokens_does(server, client):
    ids = server.http().post("/tokenize", json={"prompt": " seven", "add_special_tokens": False}).json()["tokens"]
    answer = client.completions.create(model="demo", prompt=PROMPT, max_tokens=4, logit_bias={str(ids[-1]): 100})
    assert answer.choices[0].text.count("seven") == 4
    answer = client.completions.create(
        model="demo", prompt=PROMPT, max_tokens=30, stop=["five"], extra_body={"include_stop_str_in_output": True}
    )
    assert answer.choices[0].text.endswith("five") and answer.choices[0].stop_reason == "five"
    answer = client.completions.create(
        model="demo", prompt="Berlin is", max_tokens=60, extra_body={"ignore_eos": True, "return_token_ids": True}
    )
    assert answer.usage.completion_tokens == 60 and len(answer.choices[0].token_ids) == 60


def test_tokenize_and_back(server, client):
    http = server.http()
    tokens = http.post("/tokenize", json={"model": "A1", "prompt": PROMPT, "return_token_strs": True}).json()
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"]) and tokens["max_model_len"] == 512
    assert http.post("/detokenize", json={"tokens": tokens["tokens"]}).json()["prompt"].endswith(PROMPT)
    chat = http.post("/tokenize", json={"messages": MESSAGES}).json()
    answer = client.chat.completions.create(model="demo", messages=MESSAGES, max_tokens=1)
    assert answer.usage.prompt_tokens == chat["count"]


def test_status(server):
    http = server.http()
    assert http.get("/health").status_code == http.get("/ready").status_code == 200
    assert http.get("/version").json().keys() == {"version"}
