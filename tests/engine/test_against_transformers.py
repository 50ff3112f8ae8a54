"""The engine against transformers on the same float32 weights: greedy tokens and log-probabilities."""

import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe, tokens
from tiny_models import KINDS, VOCAB_SIZE, load_oracle, make_model

from mindgen.sampling_params import SamplingParams

LENGTHS = (1, 3, 17, 40, 75)


def prompts() -> list[list[int]]:
    generator = np.random.default_rng(7)
    return [generator.integers(3, VOCAB_SIZE, length).tolist() for length in LENGTHS]


@torch.no_grad()
def log_softmax(oracle: torch.nn.Module, token_ids: list[int]) -> np.ndarray:
    """(T, V): of what follows each token."""
    return oracle(torch.tensor([token_ids])).logits[0].float().log_softmax(-1).numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_tokens_of_every_kind_of_model(kind, tmp_path):
    probe = EngineProbe(make_model(kind, tmp_path, torch.float32), num_blocks=70, max_num_batched_tokens=50)
    oracle = load_oracle(tmp_path, torch.float32)
    requests = probe.run(Ask(prompt, SamplingParams(temperature=0, max_tokens=40)) for prompt in prompts())
    for request in requests:
        expected = oracle.generate(
            torch.tensor([request.prompt_token_ids]), max_new_tokens=40, do_sample=False, pad_token_id=0
        )
        assert request.sequences[0].token_ids == expected[0].tolist()
        assert request.sequences[0].finish_reason == ("stop" if expected[0, -1] == 2 else "length")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("qwen3-untied", tmp_path_factory.mktemp("model"), torch.float32)


@pytest.fixture(scope="module")
def oracle(folder):
    return load_oracle(folder, torch.float32)


@pytest.mark.parametrize(
    ("limits", "is_alone"),
    [
        ({}, True),
        ({}, False),
        ({"max_num_batched_tokens": 9, "max_num_seqs": 4}, False),
        ({"num_blocks": 32, "max_num_batched_tokens": 64}, False),
        ({"num_blocks": 32, "max_num_batched_tokens": 64, "swap_space": 1e-2}, False),
    ],
    ids=["alone", "batched", "chunked", "preempted", "swapped"],
)
@pytest.mark.parametrize("params", [{"temperature": 0}, {"seed": 5, "n": 2}], ids=["greedy", "forks"])
def test_logprobs_are_the_log_softmax(folder, oracle, limits, is_alone, params):
    probe = EngineProbe(folder, **limits)
    params = SamplingParams(max_tokens=20, logprobs=3, prompt_logprobs=2, ignore_eos=True, **params)
    asks = [Ask(prompt, params) for prompt in prompts()]
    for _ in range(2):  # with what the prefix cache has, the second time
        for request in probe.alone(asks) if is_alone else probe.run(asks):
            check_logprobs(oracle, request)
    assert (probe.num_preempted > 0) == ("num_blocks" in limits)


def check_logprobs(oracle: torch.nn.Module, request) -> None:
    for sequence in request.sequences:
        exact = log_softmax(oracle, sequence.token_ids)
        length = len(request.prompt_token_ids)
        assert request.prompt_logprobs[0] is None and len(request.prompt_logprobs) == length
        assert len(sequence.logprobs) == len(sequence.output_token_ids) == 20
        for place, found in enumerate([*request.prompt_logprobs[1:], *sequence.logprobs], start=1):
            check_position(found, exact[place - 1], sequence.token_ids[place], 2 if place < length else 3)
        total = sum(exact[place - 1, sequence.token_ids[place]] for place in range(length, length + 20))
        assert abs(sequence.cumulative_logprob - total) < 1e-3


def check_position(found, exact: np.ndarray, token_id: int, count: int) -> None:
    order = np.argsort(-exact)
    assert set(found) == {*order[:count].tolist(), token_id}
    for each, logprob in found.items():
        assert abs(logprob - exact[each]) < 1e-4
        assert logprob.rank == 1 + int((exact > exact[each]).sum())


def test_all_logprobs(folder, oracle):
    probe = EngineProbe(folder)
    params = SamplingParams(max_tokens=2, temperature=0, logprobs=-1, prompt_logprobs=-1)
    (request,) = probe.run([Ask(prompts()[1], params)])
    exact = log_softmax(oracle, request.sequences[0].token_ids)
    found = [*request.prompt_logprobs[1:], *request.sequences[0].logprobs]
    assert len(found) == 4
    for row, logprobs in zip(exact, found, strict=False):
        np.testing.assert_allclose([logprobs[token] for token in range(VOCAB_SIZE)], row, atol=1e-4)


def test_logprobs_are_those_before_any_processor(folder, oracle):
    probe = EngineProbe(folder)
    params = SamplingParams(
        max_tokens=12, logprobs=1, seed=3, temperature=0.7, top_k=5, repetition_penalty=1.3, logit_bias={9: 4.0}
    )
    (request,) = probe.run([Ask(prompts()[2], params)])
    sequence = request.sequences[0]
    exact = log_softmax(oracle, sequence.token_ids)
    for place, found in enumerate(sequence.logprobs, start=sequence.prompt_len):
        check_position(found, exact[place - 1], sequence.token_ids[place], 1)
    assert len(tokens([request])[0][0]) == len(sequence.logprobs)
