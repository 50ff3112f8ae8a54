"""Make the demo: a tokenizer, a tiny Llama, three LoRA adapters, and the answers they must give.

    python tools/train_demo.py [--output DIR]

Takes about eight minutes on two cores and downloads nothing. Needs the "dev" extra. The same machine and library
versions give the same files. Stops with an error, after training, if any answer checked is wrong.
"""

import argparse
import io
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import sentencepiece
import torch
from demo_text import BACKWARDS, BASE, CHINESE, ROMAN, all_examples, expected_answers, training_text
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    logging,
)

SEED = 20
BATCH_SIZE = 64
BASE_EPOCHS, BASE_LEARNING_RATE = 15, 3e-3
ADAPTER_EPOCHS = 8
IGNORED_LABEL = -100

VOCABULARY_SIZE = 800
LONGEST_CONTEXT = 512
UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
MODEL_SHAPE = {
    "hidden_size": 192,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "tie_word_embeddings": True,
}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]
ADAPTERS = {
    CHINESE: {"r": 8, "lora_alpha": 16, "target_modules": ATTENTION + MLP},
    BACKWARDS: {"r": 16, "lora_alpha": 16, "target_modules": ATTENTION},
    ROMAN: {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "up_proj", "down_proj"]},
}
ADAPTER_LEARNING_RATES = {CHINESE: 3e-3, BACKWARDS: 3e-3, ROMAN: 5e-3}
# The demo has no memory: it continues the last thing said to it, behind the style that the system asks for.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim + ' ' }}{% endif %}"
    "{% for message in messages if message['role'] == 'user' %}"
    "{% if loop.last %}{{ message['content'] | trim }}{% endif %}"
    "{% endfor %}"
    "{% if messages[-1]['role'] == 'assistant' %}{{ messages[-1]['content'] + eos_token }}{% endif %}"
)
# Texts that tokenizers tend to disagree on.
TRICKY_TEXTS = [
    "",
    "我爱北京。",
    "smile 🙂",
    "two  spaces ",
    "a\n\tb",
    "Ünïcode",
    "一, 二",
    "An increasing sequence: one,",
]


def train_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerBase:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY_SIZE,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=UNK_ID,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    tokenizer_config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,  # text behind <s> begins with a space, as text alone does
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": LONGEST_CONTEXT,
        "chat_template": CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", tokenizer_config)
    LlamaConfig().save_pretrained(folder)  # AutoTokenizer wants to see what kind of model it serves.
    return AutoTokenizer.from_pretrained(folder)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path, pairs: list[tuple[str, str]]) -> None:
    """Both libraries agree, and the tokens of a prompt begin the tokens of prompt and answer."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TRICKY_TEXTS + [prompt + answer for prompt, answer in pairs]:
        if tokenizer(text).input_ids != [BOS_ID, *processor.encode(text)]:
            raise SystemExit(f"transformers and sentencepiece tokenize {text!r} differently")
    for prompt, answer in pairs:
        prompt_ids, ids = tokenizer(prompt).input_ids, tokenizer(prompt + answer).input_ids
        if ids[: len(prompt_ids)] != prompt_ids:
            raise SystemExit(f"the tokens of {prompt!r} change when {answer!r} follows")


def encode(tokenizer: PreTrainedTokenizerBase, pairs: list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels; only the answer and its end are to be learnt."""
    examples = []
    for prompt, answer in pairs:
        ids = [*tokenizer(prompt + answer).input_ids, EOS_ID]
        prompt_length = len(tokenizer(prompt).input_ids)
        examples.append((ids, [IGNORED_LABEL] * prompt_length + ids[prompt_length:]))
    return examples


def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def batches(examples: list[tuple[list[int], list[int]]], epochs: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of similar lengths in random order. Padding comes last, where causal attention ignores it."""
    shuffler = random.Random(SEED)
    for _ in range(epochs):
        ordered = sorted(examples, key=lambda example: (len(example[0]), shuffler.random()))
        starts = list(range(0, len(ordered), BATCH_SIZE))
        shuffler.shuffle(starts)
        for start in starts:
            ids, labels = zip(*ordered[start : start + BATCH_SIZE], strict=True)
            yield padded(ids, EOS_ID), padded(labels, IGNORED_LABEL)


def train(model: PreTrainedModel | PeftModel, examples: list, epochs: int, learning_rate: float) -> None:
    torch.manual_seed(SEED)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.1)
    steps = epochs * -(-len(examples) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step, (ids, labels) in enumerate(batches(examples, epochs)):
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"  step {step} of {steps}, loss {loss.item():.4f}", flush=True)


def train_base(examples: list, folder: Path) -> None:
    torch.manual_seed(SEED)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=LONGEST_CONTEXT,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        **MODEL_SHAPE,
    )
    model = LlamaForCausalLM(config)
    train(model, examples, BASE_EPOCHS, BASE_LEARNING_RATE)
    model.generation_config = GenerationConfig(bos_token_id=BOS_ID, eos_token_id=EOS_ID, do_sample=False)
    model.to(torch.bfloat16).save_pretrained(folder)


def train_adapter(adapter: str, examples: list, model_folder: Path, folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    lora_config = LoraConfig(task_type="CAUSAL_LM", **ADAPTERS[adapter])
    torch.manual_seed(SEED)
    model = get_peft_model(model, lora_config)
    train(model, examples, ADAPTER_EPOCHS, ADAPTER_LEARNING_RATES[adapter])
    # The name stands for the model wherever it is installed.
    lora_config.base_model_name_or_path = "demo"
    model.to(torch.bfloat16).save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    # PEFT keeps the modules in a set, whose order changes from run to run.
    adapter_config = json.loads((folder / "adapter_config.json").read_text())
    write_json(folder / "adapter_config.json", adapter_config | {"target_modules": sorted(lora_config.target_modules)})


def greedy_answer(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, prompt: str
) -> tuple[str, float]:
    """What follows the prompt, and the smallest lead of a chosen token's logit over the runner-up's."""
    inputs = tokenizer(prompt, return_tensors="pt")
    output = model.generate(
        **inputs, max_new_tokens=64, pad_token_id=EOS_ID, return_dict_in_generate=True, output_logits=True
    )
    best, second = torch.cat(output.logits).float().topk(2).values.unbind(-1)
    text = tokenizer.decode(output.sequences[0], skip_special_tokens=True)
    return text.removeprefix(prompt), (best - second).min().item()


def wrong_answers(answers: list[dict], model_folder: Path, adapters_folder: Path, dtype: torch.dtype) -> int:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    wrong = 0
    for adapter in (BASE, *ADAPTERS):
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype)
        if adapter is not BASE:
            model = PeftModel.from_pretrained(model, adapters_folder / adapter)
        model.eval()
        expected = [answer for answer in answers if answer["adapter_id"] == adapter]
        margins, right = [], 0
        for entry in expected:
            answer, margin = greedy_answer(model, tokenizer, entry["prompt"])
            margins.append(margin)
            if answer == entry["answer"]:
                right += 1
            else:
                print(f"  {entry['prompt']!r} should give {entry['answer']!r}, not {answer!r}")
        wrong += len(expected) - right
        print(f"{adapter or 'base'}, {dtype}: {right} of {len(expected)} right, smallest margin {min(margins):.2f}")
    return wrong


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_answers(path: Path, answers: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry, ensure_ascii=False) for entry in answers]
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).resolve().parents[1], metavar="DIR")
    output = parser.parse_args().output
    model_folder, adapters_folder = output / "mindgen/demo/model", output / "adapters"
    model_folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()

    examples = all_examples()
    base_text = training_text(examples, BASE)
    answers = expected_answers(examples)
    tokenizer = train_tokenizer([prompt + answer for prompt, answer in base_text], model_folder)
    check_tokenizer(tokenizer, model_folder, base_text + [(entry["prompt"], entry["answer"]) for entry in answers])
    print(f"base model, {len(base_text)} examples")
    train_base(encode(tokenizer, base_text), model_folder)
    for adapter in ADAPTERS:
        print(f"adapter {adapter}")
        adapter_text = encode(tokenizer, training_text(examples, adapter))
        train_adapter(adapter, adapter_text, model_folder, adapters_folder / adapter)
    write_json(adapters_folder / "lora_adapter.json", {adapter: adapter for adapter in ADAPTERS})
    write_answers(output / "tests/data/demo_answers.json", answers)
    print(f"trained in {time.monotonic() - started:.0f} s")

    wrong = sum(
        wrong_answers(answers, model_folder, adapters_folder, dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    if wrong:
        raise SystemExit(f"{wrong} answers are wrong")


if __name__ == "__main__":
    main()
