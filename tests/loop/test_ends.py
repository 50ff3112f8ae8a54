"""How outputs end: stop texts and tokens, min_tokens, masks, deadlines, failures; on the demo in float32."""

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from loops import engine_of, open_all, stopped

from mindgen import LLM, SamplingParams
from mindgen.engine.engine_config import EngineConfig
from mindgen.errors import QueueFullError, RequestError
from mindgen.runner.batch import Logits

PROMPT = "An increasing sequence: one,"
REPETITION = "seven, eight, seven, eight, seven, eight, seven, eight,"
EOS = 2
# At this temperature the demo babbles: many different tokens, pieces of words and of characters among them.
BABBLE = SamplingParams(temperature=1.5, seed=4, max_tokens=40, ignore_eos=True)


@pytest.fixture(scope="module")
def llm():
    return LLM("demo", dtype="float32", config=EngineConfig(max_num_batched_tokens=64))


@pytest.fixture(autouse=True)
def leaves_nothing_behind(llm):
    yield
    engine_of(llm).check_integrity()
    assert not engine_of(llm).has_unfinished() and not llm._model._texts._open
    assert engine_of(llm)._blocks.num_free == llm.memory_plan.num_blocks


def complete(llm: LLM, params: SamplingParams, prompt: str = PROMPT):
    return llm.generate(prompt, params)[0].outputs[0]


def ending_at(llm: LLM, plain, stop: str) -> list[int]:
    """The fewest of the output's tokens whose text has the stop text."""
    for count in range(1, len(plain.token_ids) + 1):
        if stop in text_of(llm, plain.token_ids[:count]):
            return plain.token_ids[:count]
    raise AssertionError(f"{stop!r} is not in {plain.text!r}")


def text_of(llm: LLM, token_ids: list[int]) -> str:
    """What tokens add to the prompt's text."""
    before = llm.encode(PROMPT)
    return llm.decode([*before, *token_ids])[len(llm.decode(before)) :]


@pytest.mark.parametrize("is_included", [False, True])
@pytest.mark.parametrize(("start", "length"), [(0, 3), (17, 9), (30, 1), (41, 25)])
def test_stop_texts_split_over_tokens(llm, start, length, is_included):
    params = replace(BABBLE, logprobs=0)
    plain = complete(llm, params)
    stop = plain.text[start : start + length]
    found = complete(llm, replace(params, stop=["\0", stop], include_stop_str_in_output=is_included))
    assert (found.finish_reason, found.stop_reason) == ("stop", stop)
    assert found.text == plain.text[: plain.text.index(stop)] + stop * is_included
    assert found.token_ids == ending_at(llm, plain, stop)
    assert found.cumulative_logprob == pytest.approx(sum(plain.logprobs[i][t] for i, t in enumerate(found.token_ids)))
    assert len(found.logprobs) == len(found.token_ids)


@pytest.mark.parametrize("temperature", [0, 0.3])
def test_a_stop_text_within_right_guesses(llm, temperature):
    """Nothing tells that a step went beyond it: tokens, log-probabilities and reasons are the plain run's."""
    allowed = llm.encode(REPETITION)[1:]
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=40, logprobs=1, allowed_token_ids=allowed)
    text = complete(llm, params, REPETITION).text
    for stop in sorted({text[i : i + 4] for i in range(0, len(text) - 4, 3)}):
        one, other = (
            complete(llm, replace(params, stop=stop, num_speculative_tokens=count), REPETITION) for count in (0, 6)
        )
        assert one.stop_reason == other.stop_reason == stop
        assert (one.text, one.token_ids) == (other.text, other.token_ids)
        assert len(one.logprobs) == len(other.logprobs) == len(one.token_ids)
        assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob)


def test_a_stop_text_that_the_last_token_completes(llm):
    """It is the reason, whatever else ends the output at that token."""
    plain = complete(llm, BABBLE)
    place = next(i for i in range(20, 40) if plain.text.count(plain.text[i : i + 6]) == 1)
    stop = plain.text[place : place + 6]
    length = len(ending_at(llm, plain, stop))
    found = complete(llm, replace(BABBLE, stop=stop, max_tokens=length))
    assert (found.finish_reason, found.stop_reason) == ("stop", stop) and found.text == plain.text[:place]


def test_forks_stop_where_they_each_do(llm):
    params = replace(BABBLE, n=5, logprobs=0)
    plain = llm.generate(PROMPT, params)[0].outputs
    third = plain[3].text
    stop = next(third[i : i + 4] for i in range(30) if sum(third[i : i + 4] in each.text for each in plain) == 1)
    found = llm.generate(PROMPT, replace(params, stop=stop))[0].outputs
    for one, other in zip(found, plain, strict=True):
        if other.index == 3:
            assert (one.finish_reason, one.stop_reason) == ("stop", stop)
            assert one.text == third[: third.index(stop)]
        else:
            assert (one.text, one.token_ids) == (other.text, other.token_ids) and one.finish_reason == "length"
            assert one.cumulative_logprob == pytest.approx(other.cumulative_logprob)


def test_best_of_returns_the_likeliest_of_its_runs(llm):
    found = llm.generate(PROMPT, replace(BABBLE, n=3, best_of=7, seed=50))[0].outputs
    runs = [complete(llm, replace(BABBLE, seed=50 + i, logprobs=0)) for i in range(7)]
    best = sorted(runs, key=lambda run: -run.cumulative_logprob)[:3]
    assert [each.index for each in found] == [0, 1, 2]
    assert [each.token_ids for each in found] == [each.token_ids for each in best]
    assert [each.text for each in found] == [each.text for each in best]
    assert all(each.logprobs is None for each in found)


def test_min_tokens_holds_stop_texts_and_stop_tokens_back(llm):
    plain = complete(llm, BABBLE)
    stop_text, stop_token = plain.text[2:5], plain.token_ids[6]
    found = complete(llm, replace(BABBLE, stop=stop_text, min_tokens=30))
    assert len(found.token_ids) >= 30
    found = complete(llm, replace(BABBLE, stop_token_ids=[stop_token], min_tokens=30, ignore_eos=False))
    assert len(found.token_ids) >= 30 and not {stop_token, EOS} & set(found.token_ids[:30])


def test_end_and_stop_tokens(llm):
    answer = complete(llm, SamplingParams(temperature=0, max_tokens=60))
    assert (answer.token_ids[-1], answer.finish_reason, answer.stop_reason) == (EOS, "stop", None)
    beyond = complete(llm, SamplingParams(temperature=0, max_tokens=60, ignore_eos=True))
    assert len(beyond.token_ids) == 60 and beyond.token_ids[: len(answer.token_ids)] == answer.token_ids
    assert beyond.finish_reason == "length"
    stop = answer.token_ids[5]
    stopped = complete(llm, SamplingParams(temperature=0, max_tokens=60, stop_token_ids=[799, stop]))
    assert stopped.token_ids == answer.token_ids[: answer.token_ids.index(stop) + 1]
    assert (stopped.finish_reason, stopped.stop_reason) == ("stop", stop)
    last = complete(llm, SamplingParams(temperature=0, max_tokens=len(answer.token_ids)))
    assert last.finish_reason == "stop"


def test_masks_and_biases(llm):
    greedy = SamplingParams(temperature=0, max_tokens=30, ignore_eos=True)
    allowed = complete(llm, replace(BABBLE, allowed_token_ids=[40, 50, 60])).token_ids
    assert set(allowed) == {40, 50, 60}
    assert set(complete(llm, replace(greedy, logit_bias={77: 1000.0})).token_ids) == {77}
    assert " two" in complete(llm, greedy).text
    without = complete(llm, replace(greedy, bad_words=["two", " three"])).text
    assert "two" not in without and "three" not in without


def test_a_deadline_ends_with_what_there_is(llm):
    params = replace(BABBLE, max_tokens=400, n=2)
    late, timely = replace(params, deadline_seconds=0.02), replace(params, deadline_seconds=1000.0)
    expired, finished = llm.generate([PROMPT] * 2, [late, timely])
    assert expired.error is None
    for one, other in zip(expired.outputs, finished.outputs, strict=True):
        assert (one.finish_reason, one.stop_reason, other.finish_reason) == ("abort", "deadline", "length")
        assert len(one.token_ids) < 400 and one.token_ids == other.token_ids[: len(one.token_ids)]
        assert other.text.startswith(one.text.rstrip("\ufffd"))
    complete(llm, BABBLE)
    assert not len(engine_of(llm)._deadlines), "finished requests are kept until their deadline"


def test_a_deadline_in_the_queue(llm):
    params = [replace(BABBLE, max_tokens=3, deadline_seconds=1e-9), replace(BABBLE, max_tokens=3)]
    expired, other = llm.generate([PROMPT] * 2, params)
    assert (expired.outputs[0].token_ids, expired.outputs[0].stop_reason) == ([], "deadline")
    assert len(other.outputs[0].token_ids) == 3


def test_more_requests_than_may_wait():
    llm = LLM("demo", config=EngineConfig(max_waiting=2, max_num_seqs=1))
    params = SamplingParams(temperature=0, max_tokens=3)
    with stopped(llm) as texts:
        opened = open_all(texts, [(PROMPT, params, None)] * 2)
        with pytest.raises(QueueFullError):
            open_all(texts, [(PROMPT, params, None)])
        while not all(each.request.is_finished for each in opened):
            texts.step()
    # A stream sends no more than the queue takes.
    assert [len(each.outputs[0].token_ids) for each in llm.generate([PROMPT] * 9, params)] == [3] * 9


def test_priorities_go_first():
    llm = LLM("demo", config=EngineConfig(max_num_seqs=1))
    params = [SamplingParams(temperature=0, max_tokens=2, priority=value) for value in (1, 0, -1, 0)]
    outputs = llm.generate([PROMPT] * 4, params)
    order = sorted(range(4), key=lambda index: outputs[index].metrics.finished_time)
    assert order == [2, 1, 3, 0]


def test_a_failing_request_fails_alone(llm):
    good = replace(BABBLE, n=2)
    expected = llm.generate(PROMPT, good)[0].outputs
    impossible = SamplingParams(guided_choice=["yes"], allowed_token_ids=[700, 701], n=3, seed=1)
    forbidden = SamplingParams(guided_choice=["yes"], min_tokens=15)
    prompts = [PROMPT, "word " * 900, PROMPT, PROMPT, PROMPT, PROMPT]
    params = [good, good, SamplingParams(guided_regex="("), impossible, forbidden, good]
    first, too_long, refused, without_tokens, _, last = llm.generate(prompts, params)
    assert first.outputs == last.outputs == expected
    assert "tokens, but the context" in too_long.error
    assert "guided_regex is refused" in refused.error
    assert "no token may come next" in without_tokens.error and not without_tokens.outputs


def test_logits_that_are_no_numbers_fail_alone(llm, monkeypatch):
    """Of one request whose forks would also have got tokens of the same step."""
    expected = llm.generate([PROMPT] * 2, [BABBLE, replace(BABBLE, n=3)])
    llm.reset_prefix_cache()
    params = [BABBLE, replace(BABBLE, n=3, max_tokens=2), replace(BABBLE, n=3)]
    with stopped(llm) as texts:
        opened = open_all(texts, [(PROMPT, each, None) for each in params])
        texts.step()
        run, failing = texts.engine._runner.run, opened[1].request.sequences[1]

        def broken(batch):
            logits, order = run(batch)
            firsts = batch.step.block_tables[:, :1].tolist()
            if failing.block_table[:1] in firsts:
                row = firsts.index(failing.block_table[:1])
                logits[row if order is None else order.index(row)] = np.nan
            return Logits(logits, order)

        monkeypatch.setattr(texts.engine._runner, "run", broken)
        while texts.has_unfinished():
            texts.step()
    outputs = [each.output() for each in opened]
    assert "NaN" in outputs[1].error and outputs[1].outputs == []
    assert outputs[0].outputs == expected[0].outputs and outputs[2].outputs == expected[1].outputs


def test_a_grammar_that_gives_up_fails_alone(llm, monkeypatch):
    params = [SamplingParams(guided_regex="[a-z ]{9,30}", n=2, seed=1), BABBLE]
    with stopped(llm) as texts:
        opened = open_all(texts, [(PROMPT, each, None) for each in params])

        def give_up(token_id):
            raise RequestError("the guided output cannot go on: too complex")

        monkeypatch.setattr(opened[0].request.sequences[1].matcher, "accept", give_up)
        while texts.has_unfinished():
            texts.step()
    outputs = [each.output() for each in opened]
    assert "cannot go on" in outputs[0].error
    assert outputs[1].outputs[0].text == complete(llm, BABBLE).text


def test_guided_and_free_requests_with_adapters_in_one_batch(llm):
    regex, choices = "(one|two|three)( [0-9]{2}){3}", ["yes", "no", "北京"]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    kinds = [
        {"guided_regex": regex},
        {},
        {"guided_choice": choices, "n": 4},
        {"guided_json": schema, "logit_bias": {token: 3.0 for token in llm.encode("}")}},
    ]
    params = [replace(BABBLE, ignore_eos=False, seed=i, **kinds[i % 4]) for i in range(12)]
    adapters = [(None, "A1", "A2", "A3", None)[i % 5] for i in range(12)]
    together = llm.generate([PROMPT] * 12, params, adapters)
    cached = llm.generate([PROMPT] * 12, params, adapters)
    for i, output in enumerate(together):
        assert output.error is None
        (alone,) = llm.generate(PROMPT, params[i], adapters[i])
        assert output.outputs == cached[i].outputs == alone.outputs
        for each in output.outputs:
            assert each.finish_reason == "stop" or i % 4 in (1, 3)
            if i % 4 == 0:
                assert re.fullmatch(regex, each.text)
            elif i % 4 == 2:
                assert each.text in choices
    assert cached[0].num_cached_tokens == (len(cached[0].prompt_token_ids) - 1) // 16 * 16


def test_guided_forks_are_runs_with_the_following_seeds(llm):
    params = SamplingParams(temperature=1.5, guided_regex="([a-z]{2,5} ){3}end", n=4, seed=9, max_tokens=40)
    forks = llm.generate(PROMPT, params)[0].outputs
    runs = [complete(llm, replace(params, n=1, seed=9 + i)) for i in range(4)]
    assert [each.text for each in forks] == [each.text for each in runs]
    assert len({each.text for each in forks}) > 1


def test_characters_in_pieces_over_forks(llm):
    """Tokens of one byte each: what was streamed is the final text, which is that of the tokens."""
    pieces = [token for token in range(800) if len(llm.tokenizer.token_bytes(token)) == 1]
    params = replace(BABBLE, temperature=5.0, allowed_token_ids=pieces, n=4, max_tokens=120, stop=["\ud7ff"])
    streamed = [""] * 4
    for chunk in llm.stream("我爱北京", params):
        streamed[chunk.output_index] += chunk.text
        if chunk.output is not None:
            outputs = chunk.output.outputs
    before = llm.encode("我爱北京")
    for text, output in zip(streamed, outputs, strict=True):
        assert text == output.text
        assert text == llm.decode([*before, *output.token_ids])[len("我爱北京") :]
    assert any(character > "\x7f" and character != "\ufffd" for text in streamed for character in text)


def test_metrics_are_in_order(llm):
    start = time.perf_counter()
    for output in llm.generate([PROMPT] * 3, replace(BABBLE, n=2)):
        times = output.metrics
        assert start < times.arrival_time < times.first_token_time < times.finished_time < time.perf_counter()
