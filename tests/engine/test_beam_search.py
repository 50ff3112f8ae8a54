"""Beam search against transformers' generate(num_beams=...): tokens and sequence scores, on tiny random models."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mindgen.engine.beam_search import Beam, BeamSearch
from mindgen.engine.sampler import Continuation, Sampler
from mindgen.engine.sampling_row import SamplingRow, Vocabulary
from mindgen.kernels import plugin
from mindgen.kernels.library import KernelLibrary
from mindgen.sampling_params import SamplingParams

VOCAB_SIZE, PROMPT = 60, [5, 9, 2]


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    return Sampler(KernelLibrary(plugin.library_path()))


@pytest.fixture(scope="module", params=[0, 1, 2])
def model(request) -> LlamaForCausalLM:
    torch.manual_seed(request.param)
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, initializer_range=0.3,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def search(model, sampler: Sampler, num_beams: int, eos: list[int], max_tokens: int, **options) -> BeamSearch:
    """Drives the policy as an engine does, all live beams in one batch."""
    penalty = options.pop("repetition_penalty", 1.0)
    beams = BeamSearch(num_beams, eos, max_tokens, **options)
    params = SamplingParams(repetition_penalty=penalty)
    rows = [SamplingRow(params, PROMPT, Vocabulary(VOCAB_SIZE), 0)]
    while not beams.is_done:
        with torch.no_grad():
            inputs = torch.tensor([[*PROMPT, *beam.token_ids] for beam in beams.beams])
            logits = model(inputs).logits[:, -1].float().numpy()
        continuations = sampler.continuations(np.ascontiguousarray(logits), rows, beams.num_continuations)
        rows = [rows[fork.parent].ahead([fork.token_id])[0] for fork in beams.advance(continuations)]
    return beams


def check(model, sampler, num_beams: int, eos: list[int], max_tokens: int, **options) -> None:
    expected = model.generate(
        torch.tensor([PROMPT]), attention_mask=torch.ones(1, len(PROMPT), dtype=torch.long), num_beams=num_beams,
        num_return_sequences=num_beams, max_new_tokens=max_tokens, do_sample=False, eos_token_id=eos or None,
        pad_token_id=0, return_dict_in_generate=True, output_scores=True, output_logits=True, **options,
    )  # fmt: skip
    found = search(model, sampler, num_beams, eos, max_tokens, **options).hypotheses
    assert len(found) == num_beams
    for hypothesis, tokens, indices in zip(found, expected.sequences, expected.beam_indices, strict=True):
        length = int((indices >= 0).sum())
        assert list(hypothesis.token_ids) == tokens[len(PROMPT) : len(PROMPT) + length].tolist()
        assert hypothesis.finish_reason == ("stop" if hypothesis.token_ids[-1] in eos else "length")
    np.testing.assert_allclose([hypothesis.score for hypothesis in found], expected.sequences_scores, rtol=1e-5)


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.0, 2.5])
def test_tokens_and_scores_equal_transformers(model, sampler, early_stopping, length_penalty):
    for eos in ([], [7], list(range(20, 32))):
        options = {"early_stopping": early_stopping, "length_penalty": length_penalty}
        check(model, sampler, 4, eos, 12, **options)


@pytest.mark.parametrize("num_beams", [2, 3, 7])
@pytest.mark.parametrize("max_tokens", [1, 2, 20])
def test_widths_and_lengths(model, sampler, num_beams, max_tokens):
    check(model, sampler, num_beams, [11, 40, 41], max_tokens)


def test_penalties_act_on_log_probabilities(model, sampler):
    check(model, sampler, 3, [7, 8], 10, repetition_penalty=1.6)


def continuations(*pairs: tuple[int, float]) -> list[Continuation]:
    return [Continuation(*pair) for pair in pairs]


def test_forks_name_the_beams_they_come_from():
    search = BeamSearch(2, stop_token_ids=[0], max_tokens=3)
    assert search.advance([continuations((1, -0.1), (2, -0.5), (3, -3.0))]) == [(0, 1), (0, 2)]
    forks = search.advance([continuations((4, -2.0), (0, -2.5)), continuations((5, -0.1), (6, -0.2))])
    assert forks == [(1, 5), (1, 6)]
    assert search.beams == [Beam((2, 5), -0.6), Beam((2, 6), -0.7)]
    assert search.hypotheses == [] and not search.is_done
    assert search.advance([continuations((0, -0.1)), continuations((7, -0.2))]) == []
    assert search.is_done
    assert [(h.token_ids, h.finish_reason) for h in search.hypotheses] == [((2, 5, 0), "stop"), ((2, 6, 7), "length")]


def test_a_search_ends_when_no_beam_can_go_on():
    search = BeamSearch(2, stop_token_ids=[0], max_tokens=9)
    assert search.advance([continuations((0, -0.1))]) == []
    assert search.is_done and [h.token_ids for h in search.hypotheses] == [(0,)]
