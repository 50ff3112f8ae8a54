"""Beam search through the engine against transformers' generate(num_beams=...), also when memory is short."""

from itertools import product

import numpy as np
import pytest
import torch
from engine_probe import Ask, EngineProbe, tokens
from tiny_adapters import make_adapter
from tiny_models import VOCAB_SIZE, load_oracle, make_model

from mindgen.sampling_params import SamplingParams

PROMPTS = [np.random.default_rng(length).integers(3, VOCAB_SIZE, length).tolist() for length in (2, 9, 30, 50)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_model("llama-multi-head", tmp_path_factory.mktemp("model"), torch.float32)


@pytest.fixture(scope="module")
def oracle(folder):
    return load_oracle(folder, torch.float32)


def beam_params(num_beams: int, max_tokens: int, **options) -> SamplingParams:
    return SamplingParams(use_beam_search=True, n=num_beams, max_tokens=max_tokens, **options)


def check(oracle, request) -> None:
    params, prompt = request.params, request.prompt_token_ids
    expected = oracle.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        num_beams=params.num_sequences, num_return_sequences=params.num_sequences, max_new_tokens=params.max_tokens,
        eos_token_id=[2, *params.stop_token_ids], pad_token_id=0, return_dict_in_generate=True, output_scores=True,
        length_penalty=params.length_penalty, early_stopping=params.early_stopping,
        repetition_penalty=params.repetition_penalty,
    )  # fmt: skip
    found = request.beam_search.hypotheses
    assert request.error is None and len(found) == params.num_sequences
    for hypothesis, sequence, indices in zip(found, expected.sequences, expected.beam_indices, strict=True):
        length = int((indices >= 0).sum())
        assert list(hypothesis.token_ids) == sequence[len(prompt) : len(prompt) + length].tolist()
    np.testing.assert_allclose([each.score for each in found], expected.sequences_scores, rtol=1e-4, atol=1e-5)


VARIANTS = [
    {"early_stopping": early_stopping, "length_penalty": length_penalty, "stop_token_ids": stop}
    for early_stopping, length_penalty, stop in product([True, False, "never"], [-1.0, 1.0, 2.0], [(), range(20, 60)])
]


def test_all_variants_beside_each_other(folder, oracle):
    probe = EngineProbe(folder, max_num_seqs=64)
    asks = [Ask(PROMPTS[i % 4], beam_params(2 + i % 3, 14, **variant)) for i, variant in enumerate(VARIANTS)]
    for request in probe.run(asks):
        check(oracle, request)


@pytest.mark.parametrize("caching", [True, False], ids=["prefix caching", ""])
@pytest.mark.parametrize(
    "limits",
    [
        {"num_blocks": 18},
        {"num_blocks": 21, "max_num_seqs": 3},
        {"num_blocks": 30, "max_num_batched_tokens": 8, "max_num_seqs": 8},
        {"num_blocks": 20, "swap_space": 1e-2},
        {"max_num_seqs": 1},
    ],
    ids=lambda limits: ", ".join(f"{name} {value}" for name, value in limits.items()),
)
def test_short_of_memory_and_beside_other_requests(folder, oracle, limits, caching):
    probe = EngineProbe(folder, enable_prefix_caching=caching, **limits)
    others = [Ask(prompt, SamplingParams(n=2, seed=i, max_tokens=15)) for i, prompt in enumerate(PROMPTS)]
    expected = tokens(EngineProbe(folder).alone(others))
    beams = [Ask(prompt, beam_params(4, 14)) for prompt in PROMPTS]
    mixed = [ask for pair in zip(beams, others, strict=True) for ask in pair]
    requests = probe.run(mixed)
    for request in requests[::2]:
        check(oracle, request)
    assert tokens(requests[1::2]) == expected
    assert probe.num_preempted > 0 or "max_num_seqs" in limits


def test_beams_of_an_adapter(folder, oracle, tmp_path):
    adapter = make_adapter("everything", folder, tmp_path)
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(load_oracle(folder, torch.float32), adapter).eval()
    probe = EngineProbe(folder, {"A": adapter}, num_blocks=40)
    params = beam_params(3, 12, repetition_penalty=1.2, length_penalty=0.0)
    requests = probe.run(Ask(PROMPTS[i % 4], params, (None, "A")[i % 2]) for i in range(4))
    for i, request in enumerate(requests):
        check((oracle, adapted)[i % 2], request)


def test_best_of_is_the_width_and_n_the_outputs(folder, oracle):
    probe = EngineProbe(folder)
    params = SamplingParams(use_beam_search=True, n=2, best_of=5, max_tokens=10)
    (request,) = probe.run([Ask(PROMPTS[1], params)])
    check(oracle, request)
