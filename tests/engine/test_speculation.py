"""Guessed tokens save steps and change nothing: the draws are the same by construction."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe, tokens
from tiny_models import VOCAB_SIZE, make_model

from mindgen.sampling_params import SamplingParams

PLAIN = [
    SamplingParams(temperature=0, max_tokens=60, ignore_eos=True),
    SamplingParams(temperature=0.2, seed=3, max_tokens=60),
    SamplingParams(temperature=0.3, seed=4, max_tokens=60, n=3, logprobs=1),
    SamplingParams(temperature=0.2, seed=5, max_tokens=60, top_p=0.9, frequency_penalty=0.05, prompt_logprobs=0),
    SamplingParams(temperature=0, max_tokens=60, min_tokens=50, repetition_penalty=1.02),
    SamplingParams(temperature=1.5, seed=6, max_tokens=60),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("qwen2-tied", tmp_path_factory.mktemp("model"), torch.float32)


def asks(num_speculative_tokens: int) -> list[Ask]:
    phrase = np.random.default_rng(0).integers(3, VOCAB_SIZE, 6).tolist()
    made = []
    for i, params in enumerate(PLAIN):
        bias = {token: 8.0 for token in phrase}  # texts of few different tokens repeat themselves
        params = replace(params, logit_bias=bias, num_speculative_tokens=num_speculative_tokens)
        made.append(Ask((phrase * 5)[i:], params))
    return made


@pytest.mark.parametrize("num_speculative_tokens", [1, 4, 9])
@pytest.mark.parametrize("limits", [{}, {"num_blocks": 28, "max_num_seqs": 5, "max_num_batched_tokens": 30}])
def test_speculative_equals_plain(folder, num_speculative_tokens, limits):
    probe = EngineProbe(folder, **limits)
    plain = probe.alone(asks(0))
    guessed = probe.run(asks(num_speculative_tokens))
    assert tokens(guessed) == tokens(plain)
    for one, other in zip(guessed, plain, strict=True):
        for sequence, reference in zip(one.sequences, other.sequences, strict=True):
            assert (sequence.finish_reason, sequence.stop_reason) == (reference.finish_reason, reference.stop_reason)
            assert len(sequence.logprobs) == len(reference.logprobs)
            assert abs(sequence.cumulative_logprob - reference.cumulative_logprob) < 1e-3
    if limits:
        assert probe.num_preempted > 0


def test_right_guesses_save_steps(folder):
    probe = EngineProbe(folder)
    ask = asks(0)[0]
    (plain,) = probe.run([ask])
    num_plain = probe.num_steps
    probe.num_steps = 0
    (guessed,) = probe.run([replace(ask, params=replace(ask.params, num_speculative_tokens=4))])
    assert tokens([guessed]) == tokens([plain])
    assert num_plain == 60 and probe.num_steps < 40


def test_guesses_never_exceed_the_budget_or_the_context(folder):
    probe = EngineProbe(folder, max_model_len=64, max_num_batched_tokens=4, max_num_seqs=2)
    schedule = probe.engine._scheduler.schedule

    def checked():
        made = schedule()
        assert made.num_tokens <= 4
        return made

    probe.engine._scheduler.schedule = checked
    params = replace(PLAIN[0], max_tokens=None, num_speculative_tokens=9)
    phrase = [7, 8, 9]
    requests = probe.run([Ask(phrase * 4, params), Ask(phrase * 5, params)])
    assert [len(request.sequences[0].token_ids) for request in requests] == [64, 64]
