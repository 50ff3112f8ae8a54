"""A stream joined is the plain answer, field by field: characters of several bytes, stop texts, several choices."""

import pytest

ADAPTERS = ("demo", "A1")
# Outputs with Chinese, and with bytes that are no characters of the vocabulary, by bias.
PROMPTS = ("An increasing sequence: six,", "我爱北京,因为", "Berlin is")
OPTIONS = (
    {"max_tokens": 24},
    {"max_tokens": 24, "logprobs": 3},
    {"max_tokens": 24, "stop": ["九", "nine", ", t"], "logprobs": 0},
    {"max_tokens": 24, "stop": ["eight, ni", "十"], "extra_body": {"include_stop_str_in_output": True}},
    {"max_tokens": 12, "temperature": 1.5, "seed": 5, "n": 3, "logprobs": 2},
    {"max_tokens": 12, "temperature": 1.5, "seed": 5, "n": 2, "best_of": 3, "logprobs": 1},
    {"max_tokens": 6, "echo": True},
    {"max_tokens": 6, "echo": True, "logprobs": 1, "stop": ["seven"]},
    {"max_tokens": 0, "echo": True, "logprobs": 1},
    {"max_tokens": 8, "extra_body": {"return_token_ids": True, "prompt_logprobs": 1}},
    {"max_tokens": 8, "extra_body": {"use_beam_search": True, "best_of": 2}, "temperature": 0},
)
LISTS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")


def joined_completion(chunks) -> dict[int, dict]:
    """By the choices' indices, as the plain answer has them."""
    choices: dict[int, dict] = {}
    for chunk in chunks:
        for given in (each.model_dump(exclude_unset=True) for each in chunk.choices):
            own = choices.setdefault(given["index"], {"index": given["index"], "text": "", "logprobs": None})
            own["text"] += given["text"]
            if given["logprobs"] is not None:
                before = own["logprobs"] or {name: [] for name in LISTS}
                own["logprobs"] = {name: before[name] + given["logprobs"][name] for name in LISTS}
            if "token_ids" in given:
                own["token_ids"] = own.get("token_ids", []) + given["token_ids"]
            for name in ("finish_reason", "stop_reason", "prompt_logprobs", "prompt_token_ids"):
                if given.get(name) is not None or name not in own:
                    own[name] = given.get(name)
    return choices


def digests(answer) -> tuple:
    """What each chunk says as the whole answer does."""
    adapter = answer.adapter_digest, answer.adapter_version
    return answer.model_digest, answer.weight_version, answer.weight_checksum, *adapter


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("model", ADAPTERS)
def test_completions(client, model, options):
    asked = {"model": model, "prompt": list(PROMPTS), **options}
    whole = client.completions.create(**asked)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    joined = joined_completion(chunks)
    for choice in whole.choices:
        expected = choice.model_dump(exclude_unset=True)
        assert {name: joined[choice.index][name] for name in expected} == expected
    assert len(joined) == len(whole.choices) == len(PROMPTS) * options.get("n", 1)
    counts = whole.usage.prompt_tokens, whole.usage.completion_tokens
    if "best_of" not in options:
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == counts
    assert {digests(chunk) for chunk in chunks} == {digests(whole)}


@pytest.mark.parametrize("options", OPTIONS[:5], ids=str)
def test_offsets_are_where_tokens_begin(client, options):
    for choice in client.completions.create(model="A1", prompt=PROMPTS[0], **{**options, "logprobs": 1}).choices:
        found = choice.logprobs
        assert len(found.tokens) == len(found.text_offset) == len(found.token_logprobs)
        for token, begin, end in zip(found.tokens, found.text_offset, found.text_offset[1:], strict=False):
            if "\ufffd" not in token and end <= len(choice.text) and token != "</s>":
                assert choice.text[begin:end] == token


CHAT_OPTIONS = (
    {"max_tokens": 24},
    {"max_tokens": 24, "logprobs": True, "top_logprobs": 2, "stop": ["九"]},
    {"max_tokens": 12, "temperature": 1.5, "seed": 1, "n": 3, "logprobs": True},
    {"max_tokens": 8, "extra_body": {"return_token_ids": True}},
)


@pytest.mark.parametrize("options", CHAT_OPTIONS, ids=str)
@pytest.mark.parametrize("model", ADAPTERS)
def test_chats(client, model, options):
    asked = {"model": model, "messages": [{"role": "user", "content": PROMPTS[0]}], **options}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True))
    assert {digests(chunk) for chunk in chunks} == {digests(whole)} and (model == "demo" or whole.adapter_digest)
    for choice in whole.choices:
        own = [each for chunk in chunks for each in chunk.choices if each.index == choice.index]
        assert "".join(each.delta.content or "" for each in own) == choice.message.content
        assert own[-1].finish_reason == choice.finish_reason and own[-1].stop_reason == choice.stop_reason
        scored = [token for each in own if each.logprobs for token in each.logprobs.content]
        assert scored == ([] if choice.logprobs is None else choice.logprobs.content)
        if "return_token_ids" in str(options):
            assert [token for each in own for token in getattr(each, "token_ids", [])] == choice.token_ids


def test_bytes_of_chat_tokens_make_the_text(client):
    answer = client.chat.completions.create(
        model="A1", messages=[{"role": "user", "content": PROMPTS[0]}], max_tokens=20, logprobs=True
    )
    data = b"".join(bytes(each.bytes or []) for each in answer.choices[0].logprobs.content)
    assert data.decode().removesuffix("</s>").strip() == answer.choices[0].message.content.strip()
    assert all(each.top_logprobs == [] for each in answer.choices[0].logprobs.content)


def test_prompts_are_scored_as_a_teacher_would(client):
    """lm-eval's call: what echo says of each token is what a completion of the tokens before it says."""
    text = "An increasing sequence: six, seven"
    ids = client.completions.create(
        model="A3", prompt=text, max_tokens=0, echo=True, logprobs=1, extra_body={"return_token_ids": True}
    ).choices[0]
    tokens = ids.prompt_token_ids
    assert ids.logprobs.token_logprobs[0] is None and ids.logprobs.top_logprobs[0] is None
    for place in range(1, len(tokens)):
        bias = {str(tokens[place]): 100}
        one = client.completions.create(
            model="A3", prompt=tokens[:place], max_tokens=1, temperature=0, logprobs=1, logit_bias=bias
        ).choices[0]
        assert one.logprobs.token_logprobs[0] == pytest.approx(ids.logprobs.token_logprobs[place], abs=0.02)
    one_more = client.completions.create(model="A3", prompt=tokens, max_tokens=1, temperature=0, echo=True, logprobs=1)
    assert one_more.choices[0].logprobs.token_logprobs[: len(tokens)] == ids.logprobs.token_logprobs
    assert len(one_more.choices[0].logprobs.tokens) == len(tokens) + 1
