"""One bad request in a batch: its error says what is wrong, and the others are answered as they are alone."""

import json
import shutil
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from loops import engine_of

from mindgen import LLM, SamplingParams
from mindgen.compat.mindformers import Model
from mindgen.engine.engine import Engine
from mindgen.errors import RequestError
from mindgen.loop.open_request import OutputText
from mindgen.store.embedded import demo_folder

PROMPT = "An increasing sequence: one,"
HALF = "\ud83d"
GREEDY = SamplingParams(temperature=0, max_tokens=8)
SAMPLED = SamplingParams(temperature=1.5, seed=7, n=2, max_tokens=8)
GOOD = [(PROMPT, GREEDY, None), ([5, 6, 7], SAMPLED, "A1"), ({"prompt": "I love"}, GREEDY, "A2")]

# prompt, parameters, adapter: and what its error says
BAD = [
    (HALF, GREEDY, None, "half a surrogate pair"),
    ({"prompt": f"a{HALF}b"}, GREEDY, None, "half a surrogate pair"),
    (["a", "b"], GREEDY, None, "token ids, which are integers, not 'a'"),
    (5, GREEDY, None, "a prompt must be a text, a list of token ids"),
    (None, GREEDY, None, "the prompt is empty"),
    ("", GREEDY, None, "the prompt is empty"),
    ([], GREEDY, None, "the prompt is empty"),
    ([None], GREEDY, None, "token ids, which are integers, not None"),
    (b"abc", GREEDY, None, "a list of token ids, not b'abc'"),
    ([1.0, 2.0], GREEDY, None, "token ids, which are integers, not 1.0"),
    (np.array([1.5, 2]), GREEDY, None, "token ids, which are integers, not 1.5"),
    ([True], GREEDY, None, "token ids, which are integers, not True"),
    ([[5, 6]], GREEDY, None, "token ids, which are integers, not [5, 6]"),
    ([10**30], GREEDY, None, "outside the vocabulary"),
    ([5, 800], GREEDY, None, "outside the vocabulary of 800"),
    ([-1], GREEDY, None, "outside the vocabulary"),
    ({"prompt_token_ids": "abc"}, GREEDY, None, "a list of token ids, not 'abc'"),
    ({"text": PROMPT}, GREEDY, None, "no 'text'"),
    ({1: 2}, GREEDY, None, "no 1"),
    (object(), GREEDY, None, "a prompt must be a text"),
    (PROMPT, {"temperature": 0}, None, "must be a SamplingParams"),
    (PROMPT, None, None, "must be a SamplingParams"),
    (PROMPT, "greedy", None, "must be a SamplingParams"),
    (PROMPT, GREEDY, 5, "adapter_id must be a text"),
    (PROMPT, GREEDY, ["A1"], "adapter_id must be a text"),
    (PROMPT, GREEDY, HALF, "half a surrogate pair"),
    (PROMPT, GREEDY, "", "adapter_id must be a text that is not empty"),
    (PROMPT, replace(GREEDY, guided_regex=HALF), None, "half a surrogate pair"),
    (PROMPT, replace(GREEDY, guided_json={"enum": [HALF]}), None, "half a surrogate pair"),
    (PROMPT, replace(GREEDY, guided_json=b"{}"), None, "guided_json is not a JSON schema"),
    (PROMPT, replace(GREEDY, guided_regex=5), None, "guided_regex must be a text"),
    (PROMPT, replace(GREEDY, guided_choice=["a", None]), None, "guided_choice must be a list of texts"),
    (PROMPT, replace(GREEDY, stop_token_ids=[5, 800]), None, "stop_token_ids has token id 800"),
    (PROMPT, replace(GREEDY, allowed_token_ids=[2**31 - 1]), None, "allowed_token_ids has token id 2147483647"),
    (PROMPT, replace(GREEDY, logit_bias={801: 1.0}), None, "logit_bias has token id 801"),
]


@pytest.fixture(scope="module")
def llm():
    return LLM("demo", dtype="float32")


@pytest.fixture(scope="module")
def answers(llm):
    """Of the good requests, each alone."""
    return [llm.generate([prompt], params, adapter)[0].outputs for prompt, params, adapter in GOOD]


def generate(llm, requests):
    prompts, params, adapters = (list(each) for each in zip(*requests, strict=True))
    return llm.generate(prompts, params, adapters)


def check_in_company(llm, answers, bad, message):
    outputs = generate(llm, [GOOD[0], bad, *GOOD[1:]])
    failed = outputs.pop(1)
    assert [output.outputs for output in outputs] == answers
    assert failed.outputs == [] and failed.finished and message in failed.error and "\n" not in failed.error
    assert isinstance(failed.exception, RequestError)
    engine_of(llm).check_integrity()
    assert not engine_of(llm).has_unfinished() and not llm._model._texts._open


@pytest.mark.parametrize(("prompt", "params", "adapter_id", "message"), BAD)
def test_a_bad_request_fails_alone(llm, answers, prompt, params, adapter_id, message):
    check_in_company(llm, answers, (prompt, params, adapter_id), message)


def test_bad_requests_fail_alone_in_replicas(answers):
    """All in one call, so that both replicas have some of either."""
    with closing(LLM("demo", dtype="float32", data_parallel_size=2)) as replicas:
        outputs = generate(replicas, [request for bad in BAD for request in (GOOD[0], bad[:3])] + GOOD)
        assert [output.outputs for output in outputs[0 : 2 * len(BAD) : 2]] == [answers[0]] * len(BAD)
        for bad, output in zip(BAD, outputs[1 : 2 * len(BAD) : 2], strict=True):
            assert bad[3] in output.error and output.outputs == []
        assert [output.outputs for output in outputs[-len(GOOD) :]] == answers


def test_streams_end_with_the_reason(llm, answers):
    prompts = [PROMPT, HALF, PROMPT]
    texts, outputs = {}, {}
    for chunk in llm.stream(prompts, [GREEDY, GREEDY, {}]):
        texts[chunk.index] = texts.get(chunk.index, "") + chunk.text
        if chunk.output is not None:
            outputs[chunk.index] = chunk.output
    assert texts == {0: answers[0][0].text, 1: "", 2: ""}
    assert outputs[0].error is None and "surrogate" in outputs[1].error and "SamplingParams" in outputs[2].error


def test_a_bad_conversation_fails_alone(llm):
    good = [{"role": "user", "content": PROMPT}]
    bad = [[{"role": "user", "content": HALF}], [{"content": "x"}], [], "hello", None, [5]]
    (alone,) = llm.chat(good, GREEDY)
    first, *failed, last = llm.chat([good, *bad, good], GREEDY)
    assert first.outputs == last.outputs == alone.outputs
    assert all(output.error and not output.outputs for output in failed)
    for messages in ("hello", None, 5, {"role": "user", "content": "x"}):
        with pytest.raises(RequestError, match="messages must be"):
            llm.chat(messages, GREEDY)


@pytest.mark.parametrize("prompts", [5, None, b"abc", {PROMPT}, iter([PROMPT])])
def test_what_is_no_list_of_prompts_is_the_calls_mistake(llm, prompts):
    with pytest.raises(RequestError, match="prompts must be a text, a list of token ids"):
        llm.generate(prompts, GREEDY)


def test_lists_of_other_lengths_are_the_calls_mistake(llm):
    for arguments in ({"sampling_params": [GREEDY]}, {"adapter_ids": ["A1"]}, {"sampling_params": []}):
        with pytest.raises(RequestError, match=f"{next(iter(arguments))} has . entries for 2 prompts"):
            llm.generate([PROMPT, PROMPT], **arguments)


def test_a_call_of_bad_requests_alone_raises(llm):
    for prompts, params, message in (([1.0, 2.0], GREEDY, "not 1.0"), ([True], GREEDY, "True"), (PROMPT, {}, "{}")):
        with pytest.raises(RequestError, match=message):
            llm.generate(prompts, params)


@pytest.mark.parametrize(
    "ids", [np.array([5, 6, 7]), tuple(map(np.int32, (5, 6, 7))), range(5, 8), np.array([[5, 6, 7]])]
)
def test_integers_of_any_kind_are_token_ids(llm, answers, ids):
    assert llm.generate(ids, SAMPLED, "A1")[0].outputs == answers[1]


@pytest.mark.parametrize("eos", [None, 5000, [2, 5000]])
def test_end_tokens_that_are_none(eos, tmp_path, answers):
    """Of a model without any, or with one that its vocabulary does not have: it is served, and guides say why not."""
    folder = shutil.copytree(demo_folder(), tmp_path / "model")
    (folder / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": eos}))
    llm = LLM(folder, dtype="float32")
    good = GOOD[:1]
    guides = {"guided_regex": "[a-z]{3}"}, {"guided_choice": ["yes"]}, {"guided_json": {"type": "boolean"}}
    others = [(PROMPT, replace(GREEDY, **each), None) for each in ({"min_tokens": 3}, *guides)]
    first, with_minimum, *guided = generate(llm, good + others)
    assert first.outputs == with_minimum.outputs == answers[0]
    has_end = eos == [2, 5000]
    for output in guided:
        assert (output.error is None) == has_end
        assert has_end or "needs an end token" in output.error


@pytest.mark.parametrize("params", [{"min_tokens": 3}, {"guided_choice": ["yes"]}])
def test_an_end_token_outside_the_vocabulary_is_refused_by_those_who_need_it(llm, answers, params, monkeypatch):
    """Whatever the loader lets through."""
    engine, texts = engine_of(llm), llm._model._texts
    monkeypatch.setattr(engine, "_vocabulary", engine._vocabulary._replace(eos_token_ids=(2, 5000)))
    monkeypatch.setattr(texts, "_model_config", replace(texts._model_config, eos_token_ids=(2, 5000)))
    monkeypatch.setattr(llm._model._texts, "_guides", None)
    check_in_company(llm, answers, (PROMPT, replace(GREEDY, **params), None), "eos_token_id")


@pytest.mark.parametrize("name", ["fill_mask", "accept"])
def test_a_guide_that_breaks_fails_alone(llm, answers, name, monkeypatch):
    monkeypatch.setattr(f"mindgen.text.guided.GuidedMatcher.{name}", broken)
    check_in_company(llm, answers, (PROMPT, replace(GREEDY, guided_regex="[a-z]{3,9}"), None), "IndexError: it broke")


def test_text_that_breaks_fails_alone(llm, answers, monkeypatch):
    advance = OutputText.advance

    def advance_others(self, sequence, engine: Engine):
        return broken() if sequence.request.params.stop else advance(self, sequence, engine)

    monkeypatch.setattr(OutputText, "advance", advance_others)
    for stop in (["\0"], [PROMPT]):
        check_in_company(llm, answers, (PROMPT, replace(GREEDY, stop=stop), None), "IndexError: it broke")


def test_a_tokenizer_that_breaks_fails_alone(llm, answers, monkeypatch):
    encode = llm.tokenizer._encode
    monkeypatch.setattr(
        llm.tokenizer, "_encode", lambda text, special: broken() if "bad" in text else encode(text, special)
    )
    check_in_company(llm, answers, ("bad", GREEDY, None), "IndexError: it broke")
    check_in_company(llm, answers, (PROMPT, replace(GREEDY, bad_words=["bad"]), None), "IndexError: it broke")


def test_a_beam_search_that_breaks_fails_alone(llm, answers, monkeypatch):
    monkeypatch.setattr("mindgen.engine.beam_search.BeamSearch.advance", broken)
    check_in_company(llm, answers, (PROMPT, replace(GREEDY, use_beam_search=True, n=2), None), "IndexError: it broke")


def broken(*_):
    raise IndexError("it broke")


@pytest.mark.parametrize(
    ("input_ids", "options", "message"),
    [
        (None, {}, "input_ids must hold a row"),
        (5, {}, "input_ids must hold a row"),
        ("abc", {}, "input_ids must hold a row"),
        ([], {}, "input_ids must hold a row"),
        ([1.0, 2.0], {}, "input_ids must be token ids, which are integers, not 1.0"),
        ([[5, 6], ["a"]], {}, "input_ids must be token ids, which are integers, not 'a'"),
        ([[5, 6], b"ab"], {}, "input_ids must be a list of token ids, not b'ab'"),
        ([[[5]]], {}, "input_ids must be token ids, which are integers, not [5]"),
        ([5, 6], {"attention_mask": 1}, "attention_mask must hold a row"),
        ([5, 6], {"eos_token_id": 2.0}, "eos_token_id must be token ids, which are integers, not 2.0"),
        ([5, 6], {"eos_token_id": "</s>"}, "eos_token_id must be a list of token ids, not '</s>'"),
        ([5, 6], {"pad_token_id": True}, "pad_token_id must be token ids, which are integers, not True"),
        ([5, 6], {"num_beams": "4"}, "num_beams must be an integer, not '4'"),
        ([5, 6], {"max_length": "30"}, "max_length must be an integer, not '30'"),
        ([5, 6], {"min_length": 2.5}, "min_length must be an integer, not 2.5"),
        ([5, 6], {"do_sample": "no"}, "do_sample must be True or False, not 'no'"),
        ([5, 6], {"stop_token_list": ["a"]}, "stop_token_list must be a text, not ['a']"),
        ([5, 6], {"new_token_limit": 2.5}, "max_tokens must be an integer, not 2.5"),
    ],
)
def test_rows_of_mindformers_are_refused_in_one_line(llm, input_ids, options, message):
    with pytest.raises(RequestError) as raised:
        Model(llm).generate(input_ids, **options)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_rows_of_numpys_integers_are_rows(llm):
    (expected,) = Model(llm).generate([5, 6, 7], max_new_tokens=4)
    rows = np.array([[5, 6, 7], [0, 5, 6]], np.int64)
    masks = np.array([[True, True, True], [False, True, True]])
    first, second = Model(llm).generate(rows, attention_mask=masks, max_new_tokens=4, eos_token_id=np.int64(2))
    assert first.tolist() == expected.tolist() and second[:2].tolist() == [5, 6]
