"""A request's tokens and log-probabilities are the same to the bit whatever is computed beside it, and in what pieces.

With a real model in bfloat16: small ones have sums too short to show a difference.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_model import fetch_real_model
from transformers import AutoModelForCausalLM

from mindgen import LLM, SamplingParams

pytestmark = pytest.mark.slow

SUBJECTS = ["the sea", "a clock that runs backwards", "photosynthesis", "巴黎", "prime numbers", "my neighbour's dog",
            "the year 1848", "a recipe for bread"]  # fmt: skip
TASKS = ["Write a short story about {}.", "{}:", "Explain {} to a child, then list three facts:\n1.",
         "Q: What do you know of {}? A: I know that {}, " + "again and again, " * 12 + "{}"]  # fmt: skip
PROMPTS = [task.format(*[subject] * 3) for task in TASKS for subject in SUBJECTS]
PARAMS = SamplingParams(max_tokens=64, ignore_eos=True, temperature=0, logprobs=2)
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    "plain": LoraConfig(r=8, target_modules=["q_proj", "v_proj"]),
    "every": LoraConfig(r=20, target_modules=PROJECTIONS),
    "scaled": LoraConfig(r=16, target_modules=["q_proj", "down_proj"], use_dora=True),
}
ADAPTER_IDS = [(None, *ADAPTERS)[number // 2 % 4] for number in range(len(PROMPTS))]

Found = list[tuple[list[int], list[dict[int, float]]]]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return fetch_real_model(tmp_path_factory.mktemp("smollm2"))


@pytest.fixture(scope="module")
def adapters(model, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("adapters")
    torch.manual_seed(0)
    for name, config in ADAPTERS.items():
        adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), config)
        for parameter_name, parameter in adapted.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.01)
        adapted.to(torch.bfloat16).save_pretrained(folder / name)
    return {name: str(folder / name) for name in ADAPTERS}


def generate(llm: LLM, count: int, adapter_ids: list[str | None] = ADAPTER_IDS, **params: object) -> Found:
    """All prompts, so many at once: their tokens, and of each step the log-probabilities of the likeliest tokens."""
    sampling = replace(PARAMS, **params)
    found: Found = []
    for first in range(0, len(PROMPTS), count):
        numbers = slice(first, first + count)
        for output in llm.generate(PROMPTS[numbers], sampling, adapter_ids[numbers]):
            assert output.error is None
            completion = output.outputs[0]
            steps = [{token: entry.logprob for token, entry in step.items()} for step in completion.logprobs]
            found.append((list(completion.token_ids), steps))
    return found


@pytest.fixture(scope="module")
def llm(model, adapters) -> Iterator[LLM]:
    with closing(LLM(str(model), adapters=adapters, enable_prefix_caching=False)) as llm:
        yield llm


@pytest.fixture(scope="module")
def alone(llm) -> Found:
    found = generate(llm, 1)
    assert len({tuple(tokens) for tokens, _ in found}) > 24
    return found


def test_in_batches_of_seven_and_of_all(llm, alone):
    assert generate(llm, 7) == alone
    assert generate(llm, len(PROMPTS)) == alone


def test_speculating(llm, alone):
    assert generate(llm, len(PROMPTS), num_speculative_tokens=4) == alone


def test_in_chunks_by_one_thread_from_the_cache_and_with_other_slots(model, adapters, alone):
    limits = {"max_num_batched_tokens": 40, "block_size": 8, "num_threads": 1, "memory_utilization": "2GiB"}
    limits |= {"max_loras": 2}
    with closing(LLM(str(model), adapters=adapters, **limits)) as llm:
        assert generate(llm, len(PROMPTS)) == alone
        assert generate(llm, len(PROMPTS)) == alone
        again = llm.generate(PROMPTS, PARAMS, ADAPTER_IDS)
        assert sum(output.num_cached_tokens >= 8 for output in again) > 8


def test_base_rows_are_those_of_an_engine_without_adapters(model, alone):
    with closing(LLM(str(model))) as llm:
        found = generate(llm, len(PROMPTS), [None] * len(PROMPTS))
    base = [number for number, adapter_id in enumerate(ADAPTER_IDS) if adapter_id is None]
    assert [found[number] for number in base] == [alone[number] for number in base]
