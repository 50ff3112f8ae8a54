"""Two and more pipeline stages, of one or two ranks each, against transformers and peft, and against one rank."""

import json
from contextlib import closing

import numpy as np
import pytest
import torch
from adapter_options import EXTENDED, make_option
from engine_probe import Ask, EngineProbe, tokens
from greedy_steps import continue_greedily, prompts
from loops import engine_of
from peft import LoraConfig, PeftModel, get_peft_model
from probe import Probe
from tiny_adapters import CONFIGS, make_adapter
from tiny_models import load_oracle, make_model, oracle_logits

from mindgen import LLM
from mindgen.errors import ConfigError, ModelError
from mindgen.parallel.stage import Stage
from mindgen.sampling_params import SamplingParams

SIZES = {"num_hidden_layers": 3, "vocab_size": 323}  # which divide among no two stages or ranks


@pytest.mark.parametrize(
    ("kind", "num_stages", "num_ranks"),
    [
        ("llama-biased-one-kv-head", 3, 1),
        ("gpt2", 2, 2),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in [("qwen2-tied", 2, 1), ("qwen3-untied", 2, 2), ("gpt2", 2, 1)]
        ),
    ],
)
def test_float32_equals_one_rank_and_the_oracles(kind, num_stages, num_ranks, tmp_path):
    folder = make_model(kind, tmp_path / "model", torch.float32, **SIZES)
    adapters = [make_adapter(name, folder, tmp_path) for name in CONFIGS]
    slots = [0, 1, 2, 3, 4, 0, 1]
    alone = continue_greedily(Probe(folder, "float32", adapters), slots, 8)
    probe = Probe(folder, "float32", adapters, num_ranks=num_ranks, num_stages=num_stages)
    with closing(probe.runner):
        together = continue_greedily(probe, slots, 8)
        first = probe.logits(prompts(7), slots)
    assert together[1] == alone[1]
    np.testing.assert_allclose(together[0], alone[0], atol=2e-5 * np.abs(alone[0]).max())
    for slot in range(len(CONFIGS) + 1):
        oracle = load_oracle(folder, torch.float32)
        if slot:
            oracle = PeftModel.from_pretrained(oracle, adapters[slot - 1]).eval()
        expected = oracle_logits(oracle, prompts(7)[slots.index(slot)]).numpy()
        np.testing.assert_allclose(first[slots.index(slot)], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["qwen2-tied", "qwen3-untied"])
def test_adapters_beyond_lora_and_of_one_stage_equal_peft(kind, tmp_path):
    """DoRA, biases, LoRA on embedding and head; and adapters of which all but one stage have nothing."""
    folder = make_model(kind, tmp_path / "model", torch.float32, **SIZES)
    adapters = [make_option(name, folder, tmp_path / "options") for name in EXTENDED]
    for layer in range(3):
        config = LoraConfig(
            r=5, target_modules=["q_proj", "down_proj"], layers_to_transform=[layer], use_dora=layer > 1
        )
        torch.manual_seed(layer)
        adapted = get_peft_model(load_oracle(folder, torch.float32), config)
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                torch.nn.init.normal_(parameter, 0.0, 0.1)
        adapters.append(tmp_path / f"layer{layer}")
        adapted.save_pretrained(adapters[-1])
    slots = list(range(len(adapters) + 1))
    probe = Probe(folder, "float32", adapters, num_stages=2)
    with closing(probe.runner):
        together = probe.logits(prompts(len(slots)), slots)
    for slot, prompt in zip(slots, prompts(len(slots)), strict=True):
        oracle = load_oracle(folder, torch.float32)
        if slot:
            oracle = PeftModel.from_pretrained(oracle, adapters[slot - 1]).eval()
        np.testing.assert_allclose(together[slot], oracle_logits(oracle, prompt).numpy(), atol=1e-4)


def test_bfloat16_gives_the_logits_of_one_rank(tmp_path):
    """To the last bit where the batch is not cut: what goes between stages is rounded on one rank as well."""
    folder = make_model("qwen2-tied", tmp_path / "model", torch.bfloat16, **SIZES)
    adapters = [make_adapter(name, folder, tmp_path) for name in CONFIGS]
    slots = [0, 1, 2, 3, 4]
    alone = Probe(folder, "bfloat16", adapters).logits(prompts(5, 5), slots)
    probe = Probe(folder, "bfloat16", adapters, num_stages=2)
    with closing(probe.runner):
        np.testing.assert_array_equal(probe.logits(prompts(5, 5), slots), alone)


@pytest.mark.parametrize("parallel", [{}, pytest.param({"tensor_parallel_size": 2}, marks=pytest.mark.slow)])
def test_swapped_forked_cached_and_chunked_requests_give_the_tokens_of_one_rank(parallel, tmp_path):
    """Long prompts are cut into chunks and micro-batches; block copies and swaps reach all stages."""
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32, **SIZES)
    adapters = {name: make_adapter(name, folder, tmp_path) for name in CONFIGS}
    limits = {"num_blocks": 60, "swap_space": 1e-2, "max_num_batched_tokens": 70}
    asks = [
        Ask(prompt, SamplingParams(temperature=0.8, seed=index, n=1 + index % 2, max_tokens=30), adapter_id)
        for index, (prompt, adapter_id) in enumerate(zip(prompts(6, 100), [None, *adapters, None], strict=True))
    ]
    asks += [Ask(prompts(6, 100)[5], SamplingParams(temperature=0, max_tokens=10, prompt_logprobs=1))]
    alone = EngineProbe(folder, adapters, **limits).run(asks)
    probe = EngineProbe(folder, adapters, pipeline_parallel_size=2, **parallel, **limits)
    with closing(probe.engine):
        together = probe.run(asks)
        cached = probe.run(asks[5:6])
        assert probe.engine.metrics().cached_prompt_tokens > 0
    assert probe.num_swapped > 0
    assert tokens(together) == tokens(alone)
    assert tokens(cached) == tokens(alone[5:6])
    for row, expected in zip(together[-1].prompt_logprobs[1:], alone[-1].prompt_logprobs[1:], strict=True):
        assert row.keys() == expected.keys()
        for token, found in row.items():
            assert abs(found.logprob - expected[token].logprob) < 1e-4


def test_layers_are_shared_as_evenly_as_they_can_be():
    shares = [[Stage(index, count).layers(7) for index in range(count)] for count in (1, 2, 3, 7)]
    assert [[len(layers) for layers in each] for each in shares] == [[7], [4, 3], [3, 2, 2], [1] * 7]
    assert all([layer for layers in each for layer in layers] == list(range(7)) for each in shares)


def test_what_cannot_be_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(ConfigError, match="pipeline_parallel_size is 5, but the model has 4 layers"):
        LLM("demo", pipeline_parallel_size=5)
    with pytest.raises(ConfigError, match="pipeline_parallel_size must be at least 1, not 0"):
        LLM("demo", pipeline_parallel_size=0)


def test_a_tensor_that_no_stage_takes_is_refused(tmp_path):
    folder = make_model("qwen3-untied", tmp_path, torch.float32, **SIZES)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 2, "layer_types": config["layer_types"][:2]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="tensors that Qwen3ForCausalLM does not: .'model.layers.2"):
        Probe(folder, "float32", num_stages=2)


def test_every_stage_takes_what_the_plan_says():
    with closing(LLM("demo", pipeline_parallel_size=3, tensor_parallel_size=2)) as llm:
        plan = llm.memory_plan
        reports = engine_of(llm)._runner.reports
        assert [stage.layers for stage in plan.stages] == [range(2), range(2, 3), range(3, 4)]
        for index, stage in enumerate(plan.stages):
            taken = sum(sum(report.weights.values()) for report in reports[2 * index : 2 * index + 2])
            assert abs(taken - stage.weights) < 0.05 * stage.weights
            cache = sum(report.cache_bytes for report in reports[2 * index : 2 * index + 2])
            assert cache == plan.num_blocks * stage.block_bytes
    assert "stage 2 (layer 3, each of 2 ranks): weights" in str(plan)
