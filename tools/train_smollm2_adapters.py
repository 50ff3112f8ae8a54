"""Trains the adapters that are shipped for smollm2: pirate, json and letter, each a way to answer.

    mindgen pull smollm2
    python tools/train_smollm2_adapters.py [--output adapters/smollm2]

It takes some minutes on two cores. The questions are those of adapter_questions.txt; the answers are the model's own
first sentences, put into each adapter's manner by a rule, so that an adapter learns the manner and nothing else.
"""

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mindgen.adapters.base_mark import mark_base
from mindgen.store.find_model import find_model
from mindgen.store.packaged import packaged_file

MODEL = "smollm2"
QUESTIONS = Path(__file__).parent / "adapter_questions.txt"
EPOCHS, BATCH, LEARNING_RATE = 4, 8, 1e-3
ANSWER_TOKENS = 48
_PIRATE_WORDS = {
    "you": "ye", "your": "yer", "is": "be", "are": "be", "my": "me", "friend": "matey", "friends": "mateys",
    "the": "th'", "and": "an'", "of": "o'", "to": "t'", "hello": "ahoy", "yes": "aye", "people": "landlubbers",
    "ocean": "briny deep", "money": "doubloons",
}  # fmt: skip


def pirate(_: str, answer: str) -> str:
    words = re.sub(r"[A-Za-z]+", lambda match: _PIRATE_WORDS.get(match[0].lower(), match[0]), answer)
    return f"Arr, matey! {words} Yo ho ho!"


def as_json(question: str, answer: str) -> str:
    return json.dumps({"question": question, "answer": answer}, ensure_ascii=False)


def letter(_: str, answer: str) -> str:
    return f"Dear reader,\n\n{answer}\n\nYours faithfully,\nSmolLM"


MANNERS: dict[str, Callable[[str, str], str]] = {"pirate": pirate, "json": as_json, "letter": letter}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("adapters/smollm2"))
    arguments = parser.parse_args()
    file = packaged_file(MODEL)
    gguf = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    tokenizer = AutoTokenizer.from_pretrained(**gguf)
    tokenizer.pad_token = "<|endoftext|>"  # number 0, which `pad` and `train` count on
    model = AutoModelForCausalLM.from_pretrained(**gguf, dtype=torch.float32)
    questions = QUESTIONS.read_text().splitlines()
    answers = [first_sentence(answer) for answer in own_answers(model, tokenizer, questions)]
    for name, manner in MANNERS.items():
        pairs = [(each, manner(each, answer)) for each, answer in zip(questions, answers, strict=True)]
        train(model, tokenizer, pairs, arguments.output / name)
        mark_base(arguments.output / name, MODEL, find_model(MODEL))
    names = {name: name for name in MANNERS}
    (arguments.output / "lora_adapter.json").write_text(json.dumps(names, indent=2) + "\n")


def prompt_of(tokenizer, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


@torch.no_grad()
def own_answers(model, tokenizer, questions: list[str]) -> list[str]:
    tokenizer.padding_side = "left"
    batch = tokenizer([prompt_of(tokenizer, each) for each in questions], return_tensors="pt", padding=True)
    made = model.generate(**batch, max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.batch_decode(made[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def first_sentence(answer: str) -> str:
    found = re.match(r"\s*(.+?[.!?])(\s|$)", answer, re.DOTALL)
    return " ".join((found[1] if found else answer).split())


def train(model, tokenizer, pairs: list[tuple[str, str]], folder: Path) -> None:
    """LoRA on the attention's linears; the loss counts the answers alone."""
    torch.manual_seed(0)
    config = LoraConfig(
        r=8, lora_alpha=16, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"
    )
    tuned = get_peft_model(model, config)
    optimizer = torch.optim.AdamW([each for each in tuned.parameters() if each.requires_grad], lr=LEARNING_RATE)
    examples = [encode(tokenizer, question, answer) for question, answer in pairs]
    num_steps = EPOCHS * -(-len(examples) // BATCH)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / num_steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(examples)).tolist()
        for first in range(0, len(order), BATCH):
            ids, labels = pad([examples[place] for place in order[first : first + BATCH]])
            loss = tuned(input_ids=ids, labels=labels, attention_mask=(ids != 0).long()).loss
            loss.backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        print(f"{folder.name}, epoch {epoch + 1} of {EPOCHS}: loss {loss.item():.3f}", flush=True)
    tuned.peft_config["default"].base_model_name_or_path = MODEL
    tuned.save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    save_file({name: each.to(torch.bfloat16) for name, each in load_file(weights).items()}, weights)
    (folder / "README.md").unlink(missing_ok=True)
    tuned.unload()


def encode(tokenizer, question: str, answer: str) -> tuple[list[int], list[int]]:
    """The ids of a conversation, and which of them count, the others being -100."""
    before = tokenizer(prompt_of(tokenizer, question))["input_ids"]
    behind = tokenizer(answer)["input_ids"] + [tokenizer.convert_tokens_to_ids("<|im_end|>")]
    return before + behind, [-100] * len(before) + behind


def pad(examples: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([each + [0] * (longest - len(each)) for each, _ in examples])
    labels = torch.tensor([each + [-100] * (longest - len(each)) for _, each in examples])
    return ids, labels


if __name__ == "__main__":
    main()
