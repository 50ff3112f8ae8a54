"""The sampler's rows: what follows from a sequence's state, and from nothing else."""

import time

import numpy as np
import pytest
from sampling_reference import draw, uniform

from mindgen.engine.sampler import SampledToken, Sampler
from mindgen.engine.sampling_row import SamplingRow, Vocabulary, token_mask
from mindgen.errors import RequestError
from mindgen.kernels import plugin
from mindgen.kernels.library import KernelLibrary
from mindgen.sampling_params import SamplingParams

VOCAB_SIZE, PROMPT, SEED = 500, [1, 2, 3], 5


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(KernelLibrary(plugin.library_path()))


def make_logits(num_rows: int, seed: int = 0) -> np.ndarray:
    """Of a network that would stop soon if it could: token 0 is likely."""
    logits = np.random.default_rng(seed).standard_normal((num_rows, VOCAB_SIZE)).astype(np.float32) * 2
    logits[:, 0] = 8
    return logits


def make_row(output=(), seed: int = SEED, bad_words=(), **params) -> SamplingRow:
    row = SamplingRow(SamplingParams(**params), PROMPT, Vocabulary(VOCAB_SIZE, (0,)), seed, bad_words)
    for token_id in output:
        row.append(token_id)
    return row


def generate(sampler: Sampler, row: SamplingRow, logits: np.ndarray) -> list[SampledToken]:
    """A token from each row of logits in turn."""
    tokens = []
    for step in logits:
        tokens += sampler.sample(step[None], [row])
        row.append(tokens[-1].token_id)
    return tokens


KNOBS = [
    {}, {"top_k": 20, "top_p": 0.8}, {"min_tokens": 10, "stop_token_ids": [9]}, {"logprobs": 2},
    {"repetition_penalty": 2.0}, {"presence_penalty": 2.0, "frequency_penalty": 1.0}, {"temperature": 0},
]  # fmt: skip
BAD_WORDS = [[4], [7, 8], [9, 9, 10]]


@pytest.mark.parametrize("knobs", KNOBS)
def test_resumed_and_guessed_tokens_are_those_of_an_undisturbed_run(sampler, knobs):
    logits = make_logits(30)
    plain = generate(sampler, make_row(bad_words=BAD_WORDS, **knobs), logits)
    output = [token.token_id for token in plain]
    for position in (1, 9, 20):
        resumed = make_row(output[:position], bad_words=BAD_WORDS, **knobs)
        assert generate(sampler, resumed, logits[position:]) == plain[position:]
        row = make_row(output[:position], bad_words=BAD_WORDS, **knobs)
        guessed = [row, *row.ahead(output[position : position + 5])]
        assert sampler.sample(logits[position : position + 6], guessed) == plain[position : position + 6]
        assert generate(sampler, row, logits[position:]) == plain[position:], "guessing left its mark"


def test_draws_are_a_function_of_seed_and_position(sampler):
    logits = make_logits(1)
    row = make_row()
    for position in range(50):
        token = sampler.sample(logits, [row])[0]
        assert token.token_id in draw(logits[0], uniform(SEED, position), 1e-5)
        row.append(token.token_id)
    params = SamplingParams(n=3, seed=SEED)
    seeds = [params.sample_seed(index, fallback=0) for index in range(3)]
    runs = [generate(sampler, make_row(seed=seed), make_logits(40)) for seed in seeds]
    assert runs[2] == generate(sampler, make_row(seed=SEED + 2), make_logits(40))
    assert runs[0] != runs[1] != runs[2]


def test_eos_and_stop_tokens_wait_for_min_tokens(sampler):
    row = make_row(min_tokens=4, stop_token_ids=[3], temperature=0)
    logits = make_logits(6)
    logits[:, 3] = 5
    tokens = [token.token_id for token in generate(sampler, row, logits)]
    assert not {0, 3} & set(tokens[:4]) and tokens[4:] == [0, 0]


def test_bad_words_hinder_their_last_token_only_after_the_others(sampler):
    logits = make_logits(6)
    for step, token_id in enumerate([9, 9, 10, 7, 8, 4]):
        logits[step, token_id] = 9
    row = make_row(bad_words=BAD_WORDS, temperature=0)
    assert [token.token_id for token in generate(sampler, row, logits)] == [9, 9, 0, 7, 0, 0]


def test_masks_change_from_step_to_step(sampler):
    row, logits = make_row(temperature=0), make_logits(1)
    for allowed in ([5], [499, 31], [32]):
        row.token_mask = token_mask(allowed, VOCAB_SIZE)
        assert sampler.sample(logits, [row])[0].token_id == max(allowed, key=lambda token: logits[0, token])
    row.token_mask = None
    assert sampler.sample(logits, [row])[0].token_id == 0
    with pytest.raises(ValueError, match="16 contiguous words"):
        row.token_mask = np.zeros(15, np.uint32)


def test_logprobs_are_only_where_asked_for(sampler):
    rows = [make_row(temperature=0), make_row(temperature=0, logprobs=0), make_row(temperature=0, logprobs=2)]
    plain, chosen, two = sampler.sample(np.repeat(make_logits(1), 3, axis=0), rows)
    assert plain == SampledToken(0)
    assert (chosen.rank, chosen.top_logprobs) == (1, {})
    assert two.logprob == chosen.logprob == two.top_logprobs[0] and len(two.top_logprobs) == 2


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stop_token_ids": [500]}, "stop_token_ids has token id 500, which is outside the vocabulary of 500"),
        ({"logit_bias": {500: 1.0}}, "logit_bias has token id 500"),
        ({"allowed_token_ids": [3, 777]}, "allowed_token_ids has token id 777"),
        ({"bad_words": [[1, 500]]}, "bad_words has token id 500"),
        ({"bad_words": [[]]}, "at least one token"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused_when_a_row_is_made(params, message):
    with pytest.raises(RequestError, match=message):
        make_row(**params)


def test_python_costs_little_per_row(sampler):
    """Against the kernel alone on the same records; the best of several, as others use the machine too."""
    rows, logits = [make_row() for _ in range(256)], make_logits(256)
    records = np.frombuffer(b"".join(row.record for row in rows), np.uint8)
    results, nothing = np.empty((256, 5), np.int32), np.empty(0, np.int32)

    def seconds(function) -> float:
        times = []
        for _ in range(30):
            start = time.thread_time()
            function()
            times.append(time.thread_time() - start)
        return min(times)

    def kernel() -> None:
        sampler._kernels.call("sample", logits, records, results, nothing, nothing, 0, *logits.shape)

    assert seconds(lambda: sampler.sample(logits, rows)) - seconds(kernel) < 1e-3
