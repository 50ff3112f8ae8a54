"""Results do not depend on company, memory or luck: float32, where tokens must be equal, sampled ones too."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe, tokens
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, make_model

from mindgen.sampling_params import SamplingParams

ADAPTERS = ("everything", "query-value")
SAMPLED = SamplingParams(temperature=1.0, seed=11, max_tokens=24, ignore_eos=True)
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
KINDS = [
    GREEDY,
    SAMPLED,
    replace(SAMPLED, n=3, seed=5),
    replace(SAMPLED, top_p=0.9, top_k=40, repetition_penalty=1.2, frequency_penalty=0.3, seed=2, ignore_eos=False),
    replace(GREEDY, logprobs=2, prompt_logprobs=1),
    replace(SAMPLED, min_p=0.02, logprobs=0, seed=8, n=2, prompt_logprobs=0, max_tokens=13),
    replace(GREEDY, max_tokens=1),
    replace(SAMPLED, bad_words=(), min_tokens=4, seed=21, ignore_eos=False, typical_p=0.95),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("llama3-grouped-tied", tmp_path_factory.mktemp("model"), torch.float32)


@pytest.fixture(scope="module")
def adapters(folder, tmp_path_factory):
    return {name: make_adapter(name, folder, tmp_path_factory.mktemp("adapters")) for name in ADAPTERS}


def prompt(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCAB_SIZE, length).tolist()


@pytest.fixture(scope="module")
def asks():
    """Every kind of request with every adapter; some prompts begin alike."""
    common = prompt(99, 21)
    lengths = random.Random(1).choices(range(1, 70), k=24)
    made = []
    for i, length in enumerate(lengths):
        beginning = common if i % 3 == 0 else []
        made.append(Ask([*beginning, *prompt(i, length)], KINDS[i % len(KINDS)], (None, *ADAPTERS)[i // 2 % 3]))
    return made


@pytest.fixture(scope="module")
def expected(folder, adapters, asks):
    """Each alone, its prompt whole, with nothing cached."""
    probe = EngineProbe(folder, adapters, enable_prefix_caching=False)
    return probe.alone(asks)


def assert_equal(found, expected) -> None:
    assert tokens(found) == tokens(expected)
    for one, other in zip(found, expected, strict=True):
        for sequence, reference in zip(one.sequences, other.sequences, strict=True):
            assert sequence.finish_reason == reference.finish_reason
            assert_close(sequence.logprobs, reference.logprobs)
            assert abs(sequence.cumulative_logprob - reference.cumulative_logprob) < 1e-3
        assert (one.prompt_logprobs is None) == (other.prompt_logprobs is None)
        if one.prompt_logprobs is not None:
            assert len(one.prompt_logprobs) == len(one.prompt_token_ids) and one.prompt_logprobs[0] is None
            assert_close(one.prompt_logprobs[1:], other.prompt_logprobs[1:])


def assert_close(found, expected) -> None:
    assert [list(each) for each in found] == [list(each) for each in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(list(one.values()), list(other.values()), atol=1e-4)


@pytest.mark.parametrize(
    "limits",
    [
        {"max_num_seqs": 40},
        {"max_num_seqs": 3, "max_num_batched_tokens": 7, "block_size": 5},
        {"block_size": 16, "enable_chunked_prefill": False},
    ],
    ids=["one batch", "chunks", "whole prompts"],
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_company_and_chunks_change_nothing(folder, adapters, asks, expected, limits, one_by_one):
    probe = EngineProbe(folder, adapters, **limits)
    assert_equal(probe.run(asks, one_by_one), expected)
    assert probe.num_preempted == 0


@pytest.mark.parametrize("caching", [False, True], ids=["", "prefix caching"])
@pytest.mark.parametrize("swap_space", [0, 3e-5, 1e-2], ids=["recompute", "little swap space", "swap"])
def test_preempted_equals_undisturbed(folder, adapters, asks, expected, swap_space, caching):
    probe = EngineProbe(
        folder, adapters, num_blocks=30, swap_space=swap_space, enable_prefix_caching=caching, max_num_batched_tokens=50
    )
    assert_equal(probe.run(asks), expected)
    assert probe.num_preempted > 10
    if swap_space == 0:
        assert probe.num_swapped == 0
    else:
        assert 0 < probe.num_swapped <= probe.num_preempted
    assert not probe.engine._swap_space._kept


def test_a_prefix_hit_equals_a_cold_start(folder, adapters, asks, expected):
    probe = EngineProbe(folder, adapters)
    assert_equal(probe.run(asks), expected)
    again = probe.run(asks)
    assert_equal(again, expected)
    for request in again:
        if request.params.prompt_logprobs is None:
            assert request.num_cached_tokens == (len(request.prompt_token_ids) - 1) // 4 * 4


@pytest.mark.parametrize("adapter_id", [None, *ADAPTERS])
def test_a_conversation_finds_its_own_answers_in_the_cache(folder, adapters, adapter_id):
    probe, cold = EngineProbe(folder, adapters), EngineProbe(folder, adapters, enable_prefix_caching=False)
    history = prompt(3, 9)
    for turn in range(4):
        ask = Ask(history, replace(SAMPLED if turn % 2 else GREEDY, max_tokens=19), adapter_id)
        (found,), (undisturbed,) = probe.run([ask]), cold.run([ask])
        assert tokens([found]) == tokens([undisturbed])
        if turn > 0:  # all but the last answer's last token, which was never computed, and the new question
            assert found.num_cached_tokens == (len(history) - 8) // 4 * 4
        history = [*history, *found.sequences[0].output_token_ids, *prompt(turn, 7)]


def test_forks_equal_runs_with_the_following_seeds(folder, adapters):
    probe = EngineProbe(folder, adapters, max_num_seqs=3)
    params = replace(SAMPLED, n=6, seed=40, logprobs=1)
    forks = probe.run([Ask(prompt(1, 30), params, "everything"), Ask(prompt(2, 7), params)])
    runs = probe.alone(
        Ask(request.prompt_token_ids, replace(params, n=1, seed=40 + index), request.adapter_id)
        for request in forks
        for index in range(6)
    )
    assert [each for request in tokens(forks) for each in request] == [each[0] for each in tokens(runs)]
    assert len({tuple(each) for each in tokens(forks)[0]}) == 6
    assert all(len(each.logprobs) == 24 for request in forks for each in request.sequences)


def test_forks_prefill_once(folder, adapters):
    probe = EngineProbe(folder, adapters)
    schedules = []
    schedule = probe.engine._scheduler.schedule

    def record():
        schedules.append(schedule())
        return schedules[-1]

    probe.engine._scheduler.schedule = record
    probe.run([Ask(prompt(1, 50), replace(SAMPLED, n=8))])
    assert [each.num_tokens for each in schedules] == [50] + [8] * 23


def test_the_same_prompt_never_shares_a_block_between_adapters(folder, adapters):
    """One after the other, then all at once; and what the cache gives to each is its own."""
    probe = EngineProbe(folder, adapters)
    names = ["everything", "query-value", None]
    asks = [Ask(prompt(5, 40), SAMPLED, name) for name in names]
    cold = [probe.run([ask])[0] for ask in asks]
    assert [request.num_cached_tokens for request in cold] == [0, 0, 0]
    requests = [probe.add(ask) for ask in asks]
    while probe.engine.has_unfinished():
        probe.step()
        tables = [set(request.sequences[0].block_table) for request in requests]
        assert sum(map(len, tables)) == len(set().union(*tables))
    assert [request.num_cached_tokens for request in requests] == [36, 36, 36]
    assert tokens(requests) == tokens(cold)
    assert len({tuple(each[0]) for each in tokens(requests)}) == 3


def test_adapters_of_the_same_content_share_blocks_whatever_their_names(folder, adapters):
    probe = EngineProbe(folder, {"one": adapters["everything"], "two": adapters["everything"]})
    (first,) = probe.run([Ask(prompt(5, 40), GREEDY, "one")])
    (second,) = probe.run([Ask(prompt(5, 40), GREEDY, "two")])
    assert first.adapter_digest == second.adapter_digest and first.adapter_slot == second.adapter_slot
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 36)
    assert tokens([first]) == tokens([second])


def test_bfloat16_tokens_are_equal_but_where_two_logits_are_within_rounding(folder, adapters):
    """From where the two runs part, they are different texts; so it is the first difference that counts."""
    params = replace(GREEDY, logprobs=2, max_tokens=40)
    asks = [Ask(prompt(i, 5 + 3 * i), params, (None, *ADAPTERS)[i % 3]) for i in range(12)]
    probe = EngineProbe(folder, adapters, dtype="bfloat16", num_blocks=60, max_num_batched_tokens=40)
    num_equal = 0
    for one, other in zip(probe.alone(asks), probe.run(asks), strict=True):
        pairs = zip(one.sequences[0].output_token_ids, other.sequences[0].output_token_ids, strict=True)
        parting = next((place for place, pair in enumerate(pairs) if pair[0] != pair[1]), None)
        num_equal += parting is None
        if parting is not None:
            best, second = sorted(one.sequences[0].logprobs[parting].values(), reverse=True)[:2]
            assert best - second < 0.1
    assert num_equal >= 6
