"""Sampling against transformers' processors one by one, numpy's Philox and float64 numpy, in all instruction sets."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sampling_reference import draw_top_p, filter_scores, log_softmax, penalize, softmax, uniform
from transformers import (
    LogitsProcessor,
    MinLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from mindgen.engine.sampler import Sampler
from mindgen.engine.sampling_row import SamplingRow, Vocabulary, token_mask
from mindgen.errors import KernelError
from mindgen.sampling_params import SamplingParams

VOCAB_SIZES = [5, 1000, 4999]
SEED = 11
PROMPT, OUTPUT = [3, 4, 4, 0], [1, 4, 1, 1, 2]


def make_logits(vocab_size: int, num_rows: int = 1, scale: float = 3.0, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((num_rows, vocab_size)) * scale).astype(np.float32)


def make_row(
    params: SamplingParams, vocab_size: int, seed: int = SEED, prompt=(), output=(), eos_token_ids=(), bad_words=()
) -> SamplingRow:
    row = SamplingRow(params, prompt, Vocabulary(vocab_size, eos_token_ids), seed, bad_words)
    for token_id in output:
        row.append(token_id)
    return row


def make_rows(
    params: SamplingParams, vocab_size: int, count: int, prompt=(), output=(), **options
) -> list[SamplingRow]:
    """Rows of one sequence at `count` positions, all after the same tokens."""
    rows = [make_row(params, vocab_size, SEED, prompt, output, **options) for _ in range(count)]
    for position, row in enumerate(rows):
        row.record.position = position
    return rows


def check_draws(kernels, logits: np.ndarray, expected: np.ndarray, rows: list[SamplingRow], tolerance=1e-5) -> None:
    """That one row of logits gives what inverting the cumulative distribution of the expected scores does."""
    for row, token in zip(rows, sample(kernels, logits, rows), strict=True):
        assert token in draw_top_p(expected, row.params.top_p, SEED, row.position, tolerance), row.position


def sample(kernels, logits: np.ndarray, rows: list[SamplingRow]) -> list[int]:
    return [token.token_id for token in Sampler(kernels).sample(np.repeat(logits, len(rows), axis=0), rows)]


def warp(logits: np.ndarray, *processors: LogitsProcessor, token_ids=(0,)) -> np.ndarray:
    scores, token_ids = torch.from_numpy(logits.copy()), torch.tensor([token_ids])
    for processor in processors:
        scores = processor(token_ids, scores)
    return scores[0].numpy()


WARPERS = {
    "temperature": ({"temperature": 0.6}, [TemperatureLogitsWarper(0.6)]),
    "hot": ({"temperature": 40.0}, [TemperatureLogitsWarper(40.0)]),
    "min_p": ({"min_p": 0.03}, [MinPLogitsWarper(0.03)]),
    "typical_p": ({"typical_p": 0.7}, [TypicalLogitsWarper(0.7)]),
    "typical_p of little": ({"typical_p": 0.05}, [TypicalLogitsWarper(0.05)]),
    "top_k": ({"top_k": 3}, [TopKLogitsWarper(3)]),
    "top_k of many": ({"top_k": 700}, [TopKLogitsWarper(700)]),
    "top_p": ({"top_p": 0.6}, [TopPLogitsWarper(0.6)]),
    "top_p of nearly all": ({"top_p": 0.995}, [TopPLogitsWarper(0.995)]),
    "top_p of one": ({"top_p": 1e-6}, [TopPLogitsWarper(1e-6)]),
    "all": (
        {"temperature": 1.4, "min_p": 0.002, "typical_p": 0.95, "top_k": 40, "top_p": 0.8},
        [
            TemperatureLogitsWarper(1.4), MinPLogitsWarper(0.002), TypicalLogitsWarper(0.95), TopKLogitsWarper(40),
            TopPLogitsWarper(0.8),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("case", WARPERS.values(), ids=WARPERS.keys())
def test_filters_equal_transformers(kernels, case, vocab_size):
    options, warpers = case
    logits = make_logits(vocab_size)
    rows = make_rows(SamplingParams(**options), vocab_size, 400)
    check_draws(kernels, logits, warp(logits, *(each for each in warpers if type(each) is not TopPLogitsWarper)), rows)
    assert set(sample(kernels, logits, rows)) <= set(np.flatnonzero(warp(logits, *warpers) > -np.inf).tolist())


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.97])
def test_top_p_of_large_vocabularies(kernels, scale, top_p):
    logits = make_logits(40_000, scale=scale)
    logits[0, :20_000] -= 2 * scale  # not alike all over
    rows = make_rows(SamplingParams(top_p=top_p), 40_000, 10)
    check_draws(kernels, logits, filter_scores(logits[0], rows[0].params), rows)


PROCESSORS = {
    "repetition_penalty": ({"repetition_penalty": 1.7}, {}, lambda: RepetitionPenaltyLogitsProcessor(1.7)),
    "logit_bias": (
        {"logit_bias": {2: 1.5, 4: -3.0}},
        {},
        lambda: SequenceBiasLogitsProcessor([[[2], 1.5], [[4], -3.0]]),
    ),
    "bad_words": (
        {"bad_words": ["a", "b", "c"]},
        {"bad_words": [[0], [1, 2, 4], [2, 2]]},
        lambda: NoBadWordsLogitsProcessor([[0], [1, 2, 4], [2, 2]]),
    ),
    "min_tokens": (
        {"min_tokens": 6, "stop_token_ids": [3]},
        {"eos_token_ids": (1,)},
        lambda: MinLengthLogitsProcessor(len(PROMPT) + 6, [1, 3]),
    ),
}


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("case", PROCESSORS.values(), ids=PROCESSORS.keys())
def test_processors_equal_transformers(kernels, case, vocab_size):
    params, options, make_processor = case
    logits = make_logits(vocab_size)
    logits[0, :5] += logits.max()
    expected = warp(logits, make_processor(), token_ids=PROMPT + OUTPUT)
    rows = make_rows(SamplingParams(**params), vocab_size, 200, PROMPT, OUTPUT, **options)
    check_draws(kernels, logits, expected, rows)
    greedy = make_rows(SamplingParams(**params, temperature=0), vocab_size, 1, PROMPT, OUTPUT, **options)
    assert Sampler(kernels).sample(logits, greedy)[0].token_id == expected.argmax()


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
def test_penalties_count_what_they_should(kernels, vocab_size):
    params = SamplingParams(repetition_penalty=0.8, presence_penalty=0.9, frequency_penalty=-0.4)
    logits = make_logits(vocab_size)
    logits[0, :5] += logits.max()
    expected = penalize(logits[0], params, PROMPT, OUTPUT)
    check_draws(kernels, logits, expected, make_rows(params, vocab_size, 200, PROMPT, OUTPUT))


@pytest.mark.parametrize("vocab_size", [5, 31, 32, 33, 1000])
def test_masks_are_both_obeyed(kernels, vocab_size):
    rng = np.random.default_rng(1)
    allowed, grammar = rng.random((2, vocab_size)) < 0.6
    allowed[0] = grammar[0] = True
    rows = make_rows(SamplingParams(allowed_token_ids=np.flatnonzero(allowed).tolist()), vocab_size, 100)
    mask = token_mask(np.flatnonzero(grammar).tolist(), vocab_size)
    for row in rows:
        row.token_mask = mask
    logits = make_logits(vocab_size)
    check_draws(kernels, logits, np.where(allowed & grammar, logits[0], -np.inf), rows)


@pytest.mark.parametrize("options", [{}, {"top_k": 60}, {"top_p": 0.7}, {"temperature": 2.0, "min_p": 0.3}])
def test_chi_square_of_20000_draws(kernels, options):
    params, count = SamplingParams(**options), 20_000
    logits = np.log(np.arange(1, 101, dtype=np.float32))[None]  # probabilities k / 5050 before any filter
    closed_form = np.arange(1.0, 101.0) ** (1 / params.temperature)
    if params.top_k:
        closed_form[:-60] = 0
    if params.top_p < 1:  # the largest i sum to i (201 - i) / 2
        needed = next(i for i in range(101) if i * (201 - i) / 2 >= 0.7 * 5050)
        closed_form[:-needed] = 0
    if params.min_p:
        closed_form[closed_form < 0.3 * 10] = 0
    expected = closed_form / closed_form.sum() * count
    rows = make_rows(params, 100, count)
    observed = np.bincount(sample(kernels, logits, rows), minlength=100)
    assert (observed[expected == 0] == 0).all()
    kept = expected > 0
    statistic = ((observed[kept] - expected[kept]) ** 2 / expected[kept]).sum()
    # Wilson and Hilferty: beyond this by chance once in 10,000 times, and the seed is fixed.
    freedom = kept.sum() - 1
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.72 * np.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize("vocab_size", [1, 17, 300, 4999])
def test_greedy_takes_the_first_of_the_largest(kernels, vocab_size):
    logits = np.round(make_logits(vocab_size, 40))
    rows = make_rows(SamplingParams(temperature=0), vocab_size, 40)
    tokens = [token.token_id for token in Sampler(kernels).sample(logits, rows)]
    np.testing.assert_array_equal(tokens, logits.argmax(axis=1))


@pytest.mark.parametrize("vocab_size", [1, 30, 4999])
@pytest.mark.parametrize("count", [0, 1, 20, -1])
def test_logprobs_equal_log_softmax_before_processors(kernels, vocab_size, count):
    logits = make_logits(vocab_size, 6)
    logits[1, vocab_size // 2 :] = logits[1, vocab_size // 2]  # equal ones
    params = SamplingParams(logprobs=count, temperature=0.5, repetition_penalty=2.0, top_k=3)
    rows = make_rows(params, vocab_size, 6, prompt=[0])
    expected = torch.log_softmax(torch.from_numpy(logits), dim=-1).numpy()
    sampled = Sampler(kernels).sample(logits, rows)
    scored = Sampler(kernels).score(logits, [token.token_id for token in sampled], count)
    assert scored == sampled
    for row, values, token in zip(expected, logits, sampled, strict=True):
        np.testing.assert_allclose(token.logprob, row[token.token_id], rtol=1e-6, atol=1e-6)
        assert token.rank == (values >= values[token.token_id]).sum()
        wanted = vocab_size if count < 0 else min(count, vocab_size)
        best = np.argsort(-values, kind="stable")[:wanted]
        assert list(token.top_logprobs) == best.tolist()
        np.testing.assert_allclose(list(token.top_logprobs.values()), row[best], rtol=1e-6, atol=1e-6)


PROCESSED = {name: options for name, (options, _) in WARPERS.items()} | {
    "penalties and a bias": {
        "repetition_penalty": 1.7, "presence_penalty": 0.5, "logit_bias": {2: 1.5}, "temperature": 0.7, "top_p": 0.8
    },
    "few and top_p": {"top_k": 5, "top_p": 0.5},
}  # fmt: skip


@pytest.mark.parametrize("vocab_size", VOCAB_SIZES)
@pytest.mark.parametrize("options", PROCESSED.values(), ids=PROCESSED.keys())
def test_processed_logprobs_are_of_the_distribution_that_was_drawn_from(kernels, options, vocab_size):
    logits = make_logits(vocab_size)
    params = SamplingParams(**options, logprobs=0, processed_logprobs=True)
    rows = make_rows(params, vocab_size, 100, PROMPT, OUTPUT)
    biased = logits[0].copy()
    for token_id, bias in (params.logit_bias or {}).items():
        biased[token_id] += bias
    scores = filter_scores(penalize(biased, params, PROMPT, OUTPUT), params)
    order = np.argsort(-scores, kind="stable")
    probabilities = softmax(scores)[order]
    scores[order[1:][np.cumsum(probabilities)[:-1] >= params.top_p]] = -np.inf  # the token that crosses p is kept
    expected = log_softmax(scores)
    sampled = Sampler(kernels).sample(np.repeat(logits, 100, axis=0), rows)
    plain = make_rows(SamplingParams(**options), vocab_size, 100, PROMPT, OUTPUT)
    assert [token.token_id for token in sampled] == sample(kernels, logits, plain)
    for token in sampled:
        # Where two tokens meet at p, rounding may keep one more, of which there are 1e-5 at most in these cases.
        np.testing.assert_allclose(token.processed_logprob, expected[token.token_id], rtol=2e-6, atol=2e-5)
        np.testing.assert_allclose(token.logprob, log_softmax(logits[0])[token.token_id], rtol=1e-6, atol=1e-6)


def test_continuations_are_processed_log_probabilities(kernels):
    logits = make_logits(1000, 2)
    params = SamplingParams(repetition_penalty=1.7, temperature=0.3, top_k=2, logit_bias={7: 4.0})
    rows = make_rows(params, 1000, 2, PROMPT, OUTPUT)
    for row, found in zip(logits, Sampler(kernels).continuations(logits, rows, 9), strict=True):
        scores = log_softmax(row)
        scores[7] += 4
        scores = penalize(scores, params, PROMPT, OUTPUT)
        best = np.argsort(-scores, kind="stable")[:9]
        assert [token_id for token_id, _ in found] == best.tolist()
        np.testing.assert_allclose([logprob for _, logprob in found], scores[best], rtol=1e-6)


MIXED = [
    {"temperature": 0}, {}, {"top_k": 7}, {"top_p": 0.9}, {"typical_p": 0.5}, {"min_p": 0.1, "logprobs": 3},
    {"repetition_penalty": 1.3, "top_k": 900}, {"temperature": 0, "logprobs": 0},
    {"top_p": 0.8, "temperature": 1.2, "processed_logprobs": True},
]  # fmt: skip


def test_company_and_threads_change_no_bit(kernels):
    logits = make_logits(4999, 32)
    before = logits.copy()
    rows = [make_row(SamplingParams(**MIXED[i % len(MIXED)]), 4999, i, PROMPT, OUTPUT) for i in range(32)]
    together = Sampler(kernels).sample(logits, rows)
    alone = [Sampler(kernels).sample(logits[i : i + 1], rows[i : i + 1])[0] for i in range(32)]
    kernels.num_threads = 1
    assert repr(together) == repr(alone) == repr(Sampler(kernels).sample(logits, rows))
    np.testing.assert_array_equal(logits, before)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_odd_parameters(kernels, data):
    """Few distinct logits, some -inf: ties stay in order of their ids."""
    vocab_size = data.draw(st.integers(1, 700))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    logits = rng.integers(-data.draw(st.integers(0, 40)), 1, (1, vocab_size)).astype(np.float32)
    logits[rng.random((1, vocab_size)) < data.draw(st.sampled_from([0, 0, 0.5, 0.99]))] = -np.inf
    logits[0, rng.integers(vocab_size)] = 0
    some = st.sampled_from
    params = SamplingParams(
        temperature=data.draw(some([1e-5, 0.1, 1.0, 3.0, 1e6])),
        top_k=data.draw(st.integers(0, 1000)),
        top_p=data.draw(some([1e-9, 0.1234567, 0.5432, 0.98765, 1 - 1e-9, 1.0])),
        min_p=data.draw(some([0.0, 1e-9, 0.123, 0.99])),
    )
    expected = filter_scores(logits[0], params)
    rows = make_rows(params, vocab_size, 30)
    check_draws(kernels, logits, expected, rows, 1e-4)


@pytest.mark.parametrize("options", [{"temperature": 0}, {}, {"logprobs": 1}, {"top_k": 2, "repetition_penalty": 2.0}])
def test_rows_that_cannot_be_sampled_say_why_and_harm_no_other(kernels, options):
    logits = make_logits(300, 5)
    logits[0, 299] = np.nan
    logits[1, 40] = np.inf
    logits[2] = -np.inf
    rows = make_rows(SamplingParams(**options), 300, 5)
    rows[3] = make_rows(SamplingParams(**options, allowed_token_ids=[3]), 300, 1)[0]
    rows[3].token_mask = token_mask([4], 300)
    sampled = Sampler(kernels).sample(logits, rows)
    assert all("NaN or infinite" in token.error and token.token_id == -1 for token in sampled[:2])
    assert sampled[2].error == "no token may come next: the logits together leave none"
    assert sampled[3].error == "no token may come next: allowed_token_ids, the grammar together leave none"
    assert sampled[4].error is None and sampled[4].token_id >= 0


def test_philox_is_that_of_numpy(library):
    for seed, position in [(0, 0), (1, 0), (2**64 - 1, 5), (123456789, 2**63), (7, 2**64 - 4)]:
        uniforms = np.empty(8)
        library.call("philox_uniforms", seed, position, uniforms, 8)
        assert uniforms.tolist() == [uniform(seed, (position + i) % 2**64) for i in range(8)]


def test_bad_arguments(library):
    logits, rows = make_logits(10, 2), make_rows(SamplingParams(), 10, 2)
    for field, value, message in [
        ("num_banned", 1, "NULL"), ("num_output", -1, "negative"), ("mode", 3, "mode 3"), ("temperature", -1, "range"),
        ("top_p", 0, "range"), ("num_logprobs", 11, "11 logprobs"),
    ]:  # fmt: skip
        row = make_rows(SamplingParams(), 10, 1)[0]
        setattr(row.record, field, value)
        with pytest.raises(KernelError, match=message):
            Sampler(library).sample(logits, [rows[0], row])
    with pytest.raises(KernelError, match="outside the vocabulary"):
        Sampler(library).score(logits, [1, 10], 0)
    with pytest.raises(ValueError, match="2 rows need"):
        Sampler(library).sample(logits.astype(np.float64), rows)
    assert Sampler(library).sample(np.empty((0, 10), np.float32), []) == []
