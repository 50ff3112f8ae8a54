"""/v1/score: to the bit what the same model says in this process."""

import pytest
from trained_server import MORE, token_ids
from updates import PROMPTS

from mindgen import LLM, SamplingParams
from mindgen.rlhf import score

DRAWN = {"temperature": 0.8, "top_k": 30, "top_p": 0.9}


@pytest.fixture(scope="module")
def first(trained):
    """The model that the server has at first, in this process."""
    llm = LLM(trained.root / "0", {"lora": trained.root / "lora0"}, block_size=4)
    yield llm
    llm.close()


@pytest.mark.parametrize("adapter", [None, "lora"])
def test_scores(trained, first, adapter):
    """To the bit those of the same model in this process, and of the completions when they were drawn."""
    trained.restore()
    if adapter is not None:
        assert (
            trained.post("/v1/load_lora_adapter", json={"lora_name": "lora", "lora_path": "lora0"}).status_code == 200
        )
    name = adapter or "policy"
    drawn = trained.server.client().completions.create(
        model=name, prompt=PROMPTS, max_tokens=12, logprobs=0, seed=3,
        extra_body=MORE | DRAWN | {"processed_logprobs": True},
    )  # fmt: skip
    body = {"model": name, "text_1": PROMPTS, "text_2": token_ids(drawn), **DRAWN}
    answer = trained.post("/v1/score", None, json=body).json()
    expected = score(first, PROMPTS, token_ids(drawn), adapter, SamplingParams(**DRAWN))
    assert [each["index"] for each in answer["data"]] == [0, 1, 2] and answer["object"] == "list"
    for given, one, choice in zip(answer["data"], expected, drawn.choices, strict=True):
        assert given["logprobs"] == one.logprobs == choice.logprobs.token_logprobs
        assert given["processed_logprobs"] == one.processed_logprobs == choice.processed_logprobs
        assert given["score"] == sum(one.logprobs) and given["token_ids"] == choice.token_ids
    assert (answer["weight_checksum"], answer["adapter_digest"]) == (drawn.weight_checksum, drawn.adapter_digest)
    assert answer["usage"]["prompt_tokens"] == sum(map(len, PROMPTS))
    if adapter is not None:
        trained.post("/v1/unload_lora_adapter", json={"lora_name": "lora"})


def test_one_text_before_several(trained, first):
    answer = trained.post("/v1/score", None, json={"text_1": "Hello", "text_2": [" world", " there"]}).json()
    expected = score(first, ["Hello"] * 2, [" world", " there"])
    assert [each["logprobs"] for each in answer["data"]] == [each.logprobs for each in expected]
    one = trained.post("/v1/score", None, json={"text_1": "Hello", "text_2": " world"}).json()
    assert one["data"] == answer["data"][:1]
    never = trained.post("/v1/score", None, json={"text_1": [5, 9], "text_2": [7, 8], "top_k": 1}).json()["data"][0]
    assert min(never["processed_logprobs"]) == -9999 and all(-9999 < each < 0 for each in never["logprobs"])


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"text_2": ["a", "b", "c"], "text_1": ["a", "b"]}, "text_1", None),
        ({"text_2": ""}, "text_2", None),
        ({"text_1": []}, "text_1", None),
        ({"text_1": [100000]}, "text_1", None),
        ({"text_1": [5] * 300}, "text_2", "context_length_exceeded"),
        ({"temperature": -1}, "temperature", None),
        ({"documents": ["a"]}, "documents", "unknown_parameter"),
    ],
)
def test_what_has_no_score(trained, changes, param, code):
    answer = trained.post("/v1/score", None, json={"text_1": "a", "text_2": "b", **changes})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code), error
