"""Log-probabilities by name: exact on replay, and near those of transformers."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from real_model import fetch_real_model
from tiny_models import load_oracle, make_model
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.errors import RequestError, UnknownAdapterError
from mindgen.rlhf import score

PROMPTS = [[1, 5, 9, 200], [1, *range(20, 75)], [1, *range(20, 60), 7]]
PARAMS = SamplingParams(
    n=2,
    max_tokens=24,
    temperature=0.8,
    top_k=30,
    top_p=0.9,
    seed=3,
    logprobs=0,
    processed_logprobs=True,
    ignore_eos=True,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    make_tokenizer("byte_level_bpe", folder)
    return make_model("llama3-grouped-tied", folder, torch.float32, vocab_size=VOCAB_SIZE)


def flat(outputs):
    return [(output.prompt_token_ids, each) for output in outputs for each in output.outputs]


def raw(completion):
    return [float(entry[token]) for token, entry in zip(completion.token_ids, completion.logprobs, strict=True)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tokens_per_step", [2048, 16], ids=["whole prompts", "chunks"])
def test_a_replay_differs_by_exactly_0(folder, dtype, tokens_per_step):
    llm = LLM(folder, dtype=dtype, max_num_seqs=8, max_num_batched_tokens=tokens_per_step)
    found = flat(llm.generate(PROMPTS, PARAMS))
    for is_cold in (False, True):
        if is_cold:
            llm.reset_prefix_cache()
        prompts, completions = [prompt for prompt, _ in found], [each.token_ids for _, each in found]
        replayed = score(llm, prompts, completions, sampling_params=PARAMS)
        assert [each.logprobs for each in replayed] == [raw(each) for _, each in found]
        assert [each.processed_logprobs for each in replayed] == [each.processed_logprobs for _, each in found]
    again = flat(llm.generate(PROMPTS, PARAMS))
    assert [each.processed_logprobs for _, each in again] == [each.processed_logprobs for _, each in found]
    llm.close()


def test_both_are_those_of_transformers(folder):
    llm = LLM(folder, dtype="float32")
    oracle = load_oracle(folder, torch.float32)
    raw_differences, processed_differences = [], []
    for prompt, completion in flat(llm.generate(PROMPTS, PARAMS)):
        with torch.no_grad():
            logits = oracle(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1].double()
        tokens = torch.tensor(completion.token_ids)[:, None]
        expected = torch.log_softmax(logits, -1).gather(1, tokens)[:, 0].numpy()
        raw_differences.append(np.abs(raw(completion) - expected).max())
        scaled = logits / PARAMS.temperature
        scaled[scaled < scaled.topk(PARAMS.top_k).values[:, -1:]] = -torch.inf
        ordered, order = scaled.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        ordered[before >= PARAMS.top_p] = -torch.inf
        kept = torch.full_like(scaled, -torch.inf).scatter(1, order, ordered)
        expected = torch.log_softmax(kept, -1).gather(1, tokens)[:, 0].numpy()
        processed_differences.append(np.abs(completion.processed_logprobs - expected).max())
    print(f"largest |difference|: raw {max(raw_differences):.1e}, processed {max(processed_differences):.1e}")
    assert max(raw_differences) < 5e-5 and max(processed_differences) < 5e-5
    llm.close()


def test_texts_adapters_and_what_is_refused():
    llm = LLM(dtype="float32", max_model_len=32)
    prompt, completion = "An increasing sequence: one,", " two, three,"
    base, backwards = (each.logprobs for each in score(llm, [prompt] * 2, [completion] * 2, [None, "A2"]))
    assert base == score(llm, [[1, 383, 385, 287, 695, 490, 685]], [[492, 685, 489, 685]])[0].logprobs
    assert len(backwards) == 4
    assert sum(base) > -1 > sum(backwards)
    assert score(llm, [], []) == []
    whole = llm.generate([[1, 5]], SamplingParams(max_tokens=None, ignore_eos=True, logprobs=0))[0]
    assert len(whole.outputs[0].token_ids) == 30  # all that the context holds
    assert score(llm, [[1, 5]], [whole.outputs[0].token_ids])[0].logprobs == raw(whole.outputs[0])
    for prompts, completions, message in [
        (prompt, completion, "a list of prompts"), ([prompt], [], "as many completions"),
        ([prompt], [""], "completion 0 is empty"), ([[1, 5]], [[3] * 40], "forced_token_ids 40, more than"),
    ]:  # fmt: skip
        with pytest.raises(RequestError, match=message):
            score(llm, prompts, completions)
    with pytest.raises(RequestError, match="forced_token_ids do not go with use_beam_search"):
        score(llm, [prompt], [completion], sampling_params=SamplingParams(n=2, use_beam_search=True))
    with pytest.raises(UnknownAdapterError, match="unknown adapter_id 'A9'"):
        score(llm, [prompt] * 2, [completion] * 2, [None, "A9"])
    llm.close()


PROCESSORS = {
    "greedy": {"temperature": 0},
    "top_p": {"top_p": 0.7},
    "top_k and top_p": {"top_k": 7, "top_p": 0.6, "temperature": 1.3},
    "min_p": {"min_p": 0.1},
    "typical_p": {"typical_p": 0.5},
    "penalties": {"repetition_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.2},
    "bans": {"min_tokens": 12, "bad_words": ["a", "e"], "logit_bias": {5: 4.0}, "top_k": 50},
    "all": {"temperature": 0.7, "top_k": 40, "top_p": 0.9, "min_p": 0.01, "repetition_penalty": 1.2, "min_tokens": 5},
}


@pytest.fixture(scope="module")
def opened(folder):
    llm = LLM(folder, dtype="float32")
    yield llm
    llm.close()


@pytest.mark.parametrize("kind", PROCESSORS)
def test_every_filter_replays_to_the_bit(opened, kind):
    params = SamplingParams(max_tokens=80, seed=11, logprobs=0, processed_logprobs=True, **PROCESSORS[kind])
    found = flat(opened.generate(PROMPTS, params))
    prompts, completions = [prompt for prompt, _ in found], [each.token_ids for _, each in found]
    replayed = score(opened, prompts, completions, sampling_params=params)
    assert [each.processed_logprobs for each in replayed] == [each.processed_logprobs for _, each in found]
    assert [each.logprobs for each in replayed] == [raw(each) for _, each in found]


def test_what_could_not_be_drawn(opened):
    """The probabilities of all tokens after a prompt are 1 together, under any filter; those that it leaves out have
    none."""
    prompt, tokens = PROMPTS[1], range(VOCAB_SIZE)
    for options in ({}, *PROCESSORS.values()):
        if "min_tokens" in options:
            continue
        params = SamplingParams(**options)
        every = score(opened, [prompt] * VOCAB_SIZE, [[token] for token in tokens], sampling_params=params)
        values = np.array([each.processed_logprobs[0] for each in every], np.float64)
        assert abs(np.exp(values).sum() - 1) < 1e-5
        drawn = {
            each.outputs[0].token_ids[0]
            for each in opened.generate([prompt] * 64, [replace(params, seed=seed, max_tokens=1) for seed in range(64)])
        }
        assert all(values[token] > -np.inf for token in drawn)
        assert "top_k" not in options or (values > -np.inf).sum() <= options["top_k"]


def test_forced_tokens_are_what_an_output_begins_with(opened):
    """And it goes on as from a prompt that has them."""
    forced = [7, 8, 9, *range(30, 110)]
    params = SamplingParams(temperature=0, max_tokens=100, ignore_eos=True, forced_token_ids=forced)
    (given,) = opened.generate([PROMPTS[0]], params)
    (longer,) = opened.generate([PROMPTS[0] + forced], replace(params, forced_token_ids=(), max_tokens=17))
    assert given.outputs[0].token_ids == forced + longer.outputs[0].token_ids
    (end,) = opened.generate([PROMPTS[0]], SamplingParams(max_tokens=9, forced_token_ids=[2, 5, 2], temperature=0))
    assert end.outputs[0].token_ids[:3] == [2, 5, 2]
    sampled = opened.generate([PROMPTS[0]], SamplingParams(n=3, seed=1, max_tokens=9, forced_token_ids=[5, 6, 7]))[0]
    assert [each.token_ids[:3] for each in sampled.outputs] == [[5, 6, 7]] * 3
    assert len({tuple(each.token_ids) for each in sampled.outputs}) == 3
    for options, message in [
        ({"forced_token_ids": [5, VOCAB_SIZE]}, "outside the vocabulary"),
        ({"forced_token_ids": [1, 2, 3], "max_tokens": 2}, "forced_token_ids are 3, more than max_tokens, 2"),
        ({"forced_token_ids": [1], "guided_regex": "a"}, "do not go with"),
    ]:
        with pytest.raises(RequestError, match=message):
            opened.generate([PROMPTS[0]], SamplingParams(**options))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_replay_of_a_real_model(dtype, tmp_path):
    folder = fetch_real_model(tmp_path)
    llm = LLM(str(folder), dtype=dtype, max_model_len=512)
    prompts = ["Write a story about the sea.", "The capital of Germany is", "def add(a, b):"]
    found = flat(llm.generate([llm.encode(prompt) for prompt in prompts], PARAMS))
    completions = [each.token_ids for _, each in found]
    replayed = score(llm, [prompt for prompt, _ in found], completions, sampling_params=PARAMS)
    assert [each.logprobs for each in replayed] == [raw(each) for _, each in found]
    assert [each.processed_logprobs for each in replayed] == [each.processed_logprobs for _, each in found]
    oracle = load_oracle(folder, torch.float32)
    differences = []
    for prompt, completion in found:
        with torch.no_grad():
            logits = oracle(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1].double()
        tokens = torch.tensor(completion.token_ids)[:, None]
        differences.append(np.abs(raw(completion) - torch.log_softmax(logits, -1).gather(1, tokens)[:, 0].numpy()))
    largest, mean = np.max(differences), np.mean(differences)
    print(f"{dtype}: largest |difference| {largest:.1e}, mean {mean:.1e}")
    assert largest < {"float32": 1e-3, "bfloat16": 0.5}[dtype] and mean < {"float32": 1e-4, "bfloat16": 0.05}[dtype]
    llm.close()
