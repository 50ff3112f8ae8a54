"""Models and adapters of the same shape and other content, for tests of weights that change."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from tiny_models import load_oracle, make_model
from tiny_tokenizers import VOCAB_SIZE, make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.outputs import RequestOutput

PROMPTS = [[5, 9, 11, 30, 31, 32, 33, 34, 35, 36, 37, 38, 40, 41, 42, 43, 44, 45], [7, 8, 9], [5, 9, 11, 30, 31, 32]]
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, logprobs=0)
LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"])


def make_models(root: Path, kind: str = "llama3-grouped-tied", count: int = 2) -> list[Path]:
    """Checkpoints in bfloat16, each with a tokenizer."""
    folders = []
    for seed in range(count):
        folder = make_model(kind, root / f"{kind}-{seed}", torch.bfloat16, seed=seed, vocab_size=VOCAB_SIZE)
        folders.append(make_tokenizer("byte_level_bpe", folder))
    return folders


def make_lora(model: Path, folder: Path, seed: int, config: LoraConfig = LORA) -> Path:
    """A random adapter of that configuration."""
    torch.manual_seed(seed)
    adapted = get_peft_model(load_oracle(model, torch.float32), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.2)
    adapted.save_pretrained(folder)
    return folder


def answers(llm: LLM, adapter_id: str | None = None, params: SamplingParams = GREEDY) -> list[RequestOutput]:
    return llm.generate(PROMPTS, params, adapter_id)


def tokens(outputs: list[RequestOutput]) -> list[tuple[list[int], float | None]]:
    """With their log-probabilities, which differ where only a bit of the weights does."""
    return [(each.token_ids, each.cumulative_logprob) for output in outputs for each in output.outputs]
