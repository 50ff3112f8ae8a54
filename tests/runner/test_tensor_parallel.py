"""Two and four ranks against transformers and peft, and against one rank: the same answers."""

from contextlib import closing

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, make_option
from engine_probe import Ask, EngineProbe, tokens
from greedy_steps import continue_greedily, prompts
from peft import PeftModel
from probe import Probe
from tiny_adapters import CONFIGS, make_adapter
from tiny_models import load_oracle, make_model, oracle_logits

from mindgen.sampling_params import SamplingParams

# Nothing divides among the ranks: 323 tokens, 201 features between; and heads that share keys and values.
KINDS = {
    "llama-biased-one-kv-head": {"vocab_size": 323, "intermediate_size": 201},  # 7 query heads
    "qwen3-untied": {"vocab_size": 321},  # 3 KV heads with 2 query heads each
    "qwen2-tied": {"vocab_size": 323},  # 2 KV heads with 3 query heads each
    "glm": {"vocab_size": 323, "intermediate_size": 201},  # whose checkpoints have gate and up as one
}


@pytest.mark.parametrize(
    ("kind", "num_ranks"), [(kind, 2) for kind in KINDS] + [pytest.param("qwen2-tied", 4, marks=pytest.mark.slow)]
)
def test_float32_equals_one_rank_and_the_oracles(kind, num_ranks, tmp_path):
    folder = make_model(kind, tmp_path / "model", torch.float32, **KINDS[kind])
    adapters = [make_adapter(name, folder, tmp_path) for name in CONFIGS]
    slots = [0, 1, 2, 3, 4, 0, 1]
    alone = continue_greedily(Probe(folder, "float32", adapters), slots, 12)
    probe = Probe(folder, "float32", adapters, num_ranks=num_ranks)
    with closing(probe.runner):
        together = continue_greedily(probe, slots, 12)
        first = probe.logits(prompts(7), slots)
    assert together[1] == alone[1]
    np.testing.assert_allclose(together[0], alone[0], atol=2e-5 * np.abs(alone[0]).max())
    for slot in range(len(CONFIGS) + 1):
        oracle = load_oracle(folder, torch.float32)
        if slot:
            oracle = PeftModel.from_pretrained(oracle, adapters[slot - 1]).eval()
        expected = oracle_logits(oracle, prompts(7)[slots.index(slot)]).numpy()
        np.testing.assert_allclose(first[slots.index(slot)], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "num_ranks"), [pytest.param("llama-biased-one-kv-head", 2, marks=pytest.mark.slow), ("qwen2-tied", 3)]
)
def test_dora_biases_and_tables_equal_peft(kind, num_ranks, tmp_path):
    """LoRA on embedding and head, whose vocabulary is split, scales and biases of outputs that are or are not."""
    folder = make_model(kind, tmp_path / "model", torch.float32, **KINDS[kind])
    adapters = [make_adapter("everything", folder, tmp_path)]
    adapters += [make_option(name, folder, tmp_path / "options") for name in EXTENDED]
    slots = list(range(len(adapters) + 1))
    probe = Probe(folder, "float32", adapters, num_ranks=num_ranks)
    with closing(probe.runner):
        together = probe.logits(prompts(len(slots)), slots)
    for slot, prompt in zip(slots, prompts(len(slots)), strict=True):
        oracle = load_oracle(folder, torch.float32)
        if slot:
            oracle = PeftModel.from_pretrained(oracle, adapters[slot - 1]).eval()
        np.testing.assert_allclose(together[slot], oracle_logits(oracle, prompt).numpy(), atol=1e-4)


def test_bfloat16_is_as_exact_as_one_rank(tmp_path):
    """Partial sums are rounded before they are added up: no more than half as much again as on one rank is lost."""
    folder = make_model("qwen2-tied", tmp_path / "model", torch.bfloat16, vocab_size=323)
    adapters = [make_adapter(name, folder, tmp_path) for name in CONFIGS]
    slots = [0, 1, 2, 3, 4] * 4
    exact = Probe(folder, "float32", adapters).logits(prompts(20), slots)
    alone = Probe(folder, "bfloat16", adapters).logits(prompts(20), slots)
    probe = Probe(folder, "bfloat16", adapters, num_ranks=2)
    with closing(probe.runner):
        together = probe.logits(prompts(20), slots)
    assert np.abs(together - exact).mean() <= 1.5 * np.abs(alone - exact).mean()
    top_two = np.sort(exact, axis=1)[:, -2:]
    decided = top_two[:, 1] - top_two[:, 0] > 3 * np.abs(alone - exact).max()
    assert decided.any()
    assert (together.argmax(1) == alone.argmax(1))[decided].all()


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"num_blocks": 40, "swap_space": 1e-2, "max_num_batched_tokens": 50}])
def test_swapped_and_forked_requests_give_the_tokens_of_one_rank(limits, tmp_path):
    """The scheduler's block copies and swaps reach all ranks."""
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    adapters = {name: make_adapter(name, folder, tmp_path) for name in CONFIGS}
    asks = [
        Ask(prompt, SamplingParams(temperature=0.8, seed=index, n=1 + index % 2, max_tokens=40), adapter_id)
        for index, (prompt, adapter_id) in enumerate(zip(prompts(6), [None, *adapters, None], strict=True))
    ]
    alone = tokens(EngineProbe(folder, adapters, **limits).run(asks))
    probe = EngineProbe(folder, adapters, tensor_parallel_size=2, **limits)
    with closing(probe.engine):
        together = tokens(probe.run(asks))
    assert probe.num_swapped > 0
    assert together == alone
