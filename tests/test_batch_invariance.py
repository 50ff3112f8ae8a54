"""A request's tokens and log-probabilities are the same to the bit whatever is computed beside it, and in what pieces.

With a real model in bfloat16: small ones have sums too short to show a difference.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from real_model import fetch_real_model
from transformers import AutoModelForCausalLM

from mindgen import LLM, SamplingParams

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
    "scaled": LoraConfig(r=16, target_modules=["q_proj", "down_proj"], use_dora=True, bias="none"),
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


@contextmanager
def served(model: Path, adapters: dict[str, str], **limits: object) -> Iterator[LLM]:
    with closing(
        LLM(str(model), adapters=adapters, enable_prefix_caching=limits.pop("cached", False), **limits)
    ) as llm:
        yield llm


def generate(llm: LLM, numbers: range, adapter_ids: list[str | None], params: SamplingParams = PARAMS) -> Found:
    """The tokens of these prompts, and of each step the log-probabilities of the likeliest tokens."""
    outputs = llm.generate([PROMPTS[n] for n in numbers], params, [adapter_ids[n] for n in numbers])
    assert all(output.error is None for output in outputs)
    completions = [output.outputs[0] for output in outputs]
    return [
        (
            list(each.token_ids),
            [{token: entry.logprob for token, entry in step.items()} for step in each.logprobs],
        )
        for each in completions
    ]


@pytest.fixture(scope="module")
def alone(model, adapters) -> Found:
    with served(model, adapters, max_num_seqs=1) as llm:
        found = [generate(llm, range(n, n + 1), ADAPTER_IDS)[0] for n in range(len(PROMPTS))]
    assert len({tuple(tokens) for tokens, _ in found}) > 24
    return found


@pytest.mark.parametrize(
    "limits",
    [
        {"max_num_seqs": 7},
        {"max_num_seqs": 32},
        {"max_num_seqs": 32, "num_threads": 1},
        {"max_num_seqs": 32, "max_num_batched_tokens": 40, "block_size": 8},
    ],
    ids=["seven", "all", "one-thread", "chunked"],
)
def test_in_batches(limits, model, adapters, alone):
    with served(model, adapters, **limits) as llm:
        assert generate(llm, range(len(PROMPTS)), ADAPTER_IDS) == alone


def test_cached(model, adapters, alone):
    with served(model, adapters, cached=True, memory_utilization="2GiB") as llm:
        assert generate(llm, range(len(PROMPTS)), ADAPTER_IDS) == alone
        again = llm.generate(PROMPTS, PARAMS, ADAPTER_IDS)
        assert sum(output.num_cached_tokens > 0 for output in again) > 8
        assert generate(llm, range(len(PROMPTS)), ADAPTER_IDS) == alone


def test_speculating(model, adapters, alone):
    with served(model, adapters) as llm:
        params = SamplingParams(max_tokens=64, ignore_eos=True, temperature=0, logprobs=2, num_speculative_tokens=4)
        assert generate(llm, range(len(PROMPTS)), ADAPTER_IDS, params) == alone


def test_base_rows_are_those_of_an_engine_without_adapters(model, alone):
    base = [n for n in range(len(PROMPTS)) if ADAPTER_IDS[n] is None]
    with served(model, {}) as llm:
        found = generate(llm, range(len(PROMPTS)), [None] * len(PROMPTS))
    assert [found[n] for n in base] == [alone[n] for n in base]
