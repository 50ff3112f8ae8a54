"""Sampling: greedy, the distributions of top-k and top-p against transformers, penalties, seeds."""

import numpy as np
import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from mindgen.engine.sampler import sample
from mindgen.engine.sequence import Sequence
from mindgen.errors import RequestError
from mindgen.outputs import RequestMetrics
from mindgen.sampling_params import SamplingParams

VOCAB_SIZE = 50


def make_sequence(params: SamplingParams, token_ids: tuple[int, ...] = (1, 2)) -> Sequence:
    return Sequence(0, list(token_ids), params, 100, np.random.default_rng(params.seed), RequestMetrics(0.0))


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(VOCAB_SIZE).astype(np.float32) * 2


@pytest.mark.parametrize("params", [SamplingParams(temperature=0), SamplingParams(top_k=1)])
def test_greedy_takes_the_likeliest(params):
    for seed in range(20):
        assert sample(logits(seed), make_sequence(params)) == logits(seed).argmax()


@pytest.mark.parametrize(
    ("params", "warpers"),
    [
        (SamplingParams(seed=1), []),
        (SamplingParams(seed=1, temperature=0.7, top_k=-1), [TemperatureLogitsWarper(0.7)]),
        (SamplingParams(seed=1, top_k=5), [TopKLogitsWarper(5)]),
        (SamplingParams(seed=1, top_p=0.6), [TopPLogitsWarper(0.6)]),
        (SamplingParams(seed=1, top_p=0.001), [TopPLogitsWarper(0.001)]),
        (
            SamplingParams(seed=1, temperature=1.3, top_k=9, top_p=0.8),
            [TemperatureLogitsWarper(1.3), TopKLogitsWarper(9), TopPLogitsWarper(0.8)],
        ),
        (SamplingParams(seed=1, top_k=500), []),
    ],
)
def test_frequencies_follow_the_distribution_of_transformers(params, warpers):
    scores = torch.from_numpy(logits())[None]
    for warper in warpers:
        scores = warper(torch.tensor([[1, 2]]), scores)
    expected = torch.softmax(scores[0].double(), 0).numpy()
    sequence, count = make_sequence(params), 4000
    frequencies = np.bincount([sample(logits(), sequence) for _ in range(count)], minlength=VOCAB_SIZE) / count
    assert (frequencies[expected == 0] == 0).all(), "a token outside the kept ones was drawn"
    # Five standard deviations of a binomial count.
    np.testing.assert_array_less(np.abs(frequencies - expected), 5 * np.sqrt(expected * (1 - expected) / count) + 1e-9)


def test_repetition_penalty_equals_transformers():
    params = SamplingParams(temperature=0, repetition_penalty=1.8)
    for seed in range(50):
        row = logits(seed)
        seen = tuple(np.argsort(row)[-3:].tolist())
        expected = RepetitionPenaltyLogitsProcessor(1.8)(torch.tensor([seen]), torch.from_numpy(row.copy())[None])
        assert sample(row, make_sequence(params, seen)) == int(expected.argmax())


def test_a_seed_gives_the_same_tokens_again():
    def draw(seed: int | None) -> list[int]:
        sequence = make_sequence(SamplingParams(seed=seed))
        return [sample(logits(), sequence) for _ in range(30)]

    assert draw(5) == draw(5)
    assert draw(5) != draw(6)
    assert draw(None) != draw(None)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_tokens": 0}, {"temperature": -0.1}, {"temperature": float("nan")}, {"temperature": float("inf")},
        {"top_k": -2}, {"top_p": 0.0}, {"top_p": 1.1}, {"repetition_penalty": 0.0}, {"seed": -1},
    ],
)  # fmt: skip
def test_values_out_of_range_are_named(bad):
    with pytest.raises(RequestError, match=next(iter(bad))):
        SamplingParams(**bad)
