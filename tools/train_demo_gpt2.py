"""Make the demo's GPT-2: a byte-level BPE tokenizer and a tiny model that tells what the demo's base model does.

    python tools/train_demo_gpt2.py [--output DIR]

Takes about two minutes on one core and downloads nothing. Needs the "dev" extra. The same machine and library
versions give the same files. Stops with an error, after training, if any answer checked is wrong.
"""

import argparse
import time
from pathlib import Path

import torch
from demo_text import BASE, SEQUENCE_LENGTH, all_examples
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from train_demo import SEED, greedy_answer, train, write_json
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    logging,
)

EPOCHS, LEARNING_RATE = 40, 4e-3
END = "<|endoftext|>"
VOCABULARY_SIZE = 512
# Eight heads, so that up to eight devices can share them.
MODEL_SHAPE = {"n_embd": 128, "n_layer": 2, "n_head": 8, "n_positions": 256}
# The prompts of MindFormers' manual.
PROMPTS = {
    "An increasing sequence: one,": " two, three, four, five, six.",
    "I love Beijing,": " because it is the capital of China.",
}


def train_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerBase:
    """In the form in which GPT-2's is stored: vocab.json and merges.txt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.model.save(str(folder))
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "model_max_length": MODEL_SHAPE["n_positions"],
    }
    write_json(folder / "tokenizer_config.json", config)
    GPT2Config().save_pretrained(folder)  # AutoTokenizer wants to see what kind of model it serves.
    return AutoTokenizer.from_pretrained(folder)


def train_model(tokenizer: PreTrainedTokenizerBase, texts: list[str], folder: Path) -> None:
    end = tokenizer.eos_token_id
    examples = []
    for text in texts:
        ids = [*tokenizer(text).input_ids, end]
        examples.append((ids, ids))
    torch.manual_seed(SEED)
    config = GPT2Config(
        vocab_size=VOCABULARY_SIZE, bos_token_id=end, eos_token_id=end, embd_pdrop=0.0, attn_pdrop=0.0,
        resid_pdrop=0.0, **MODEL_SHAPE,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    train(model, examples, EPOCHS, LEARNING_RATE)
    model.generation_config = GenerationConfig(bos_token_id=end, eos_token_id=end, do_sample=False)
    model.to(torch.bfloat16).save_pretrained(folder)


def count_wrong_answers(expected: dict[str, str], folder: Path, dtype: torch.dtype) -> int:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    wrong, margins = 0, []
    for prompt, right in expected.items():
        answer, margin = greedy_answer(model, tokenizer, prompt)
        margins.append(margin)
        if answer != right:
            wrong += 1
            print(f"  {prompt!r} should give {right!r}, not {answer!r}")
    print(f"{dtype}: {len(expected) - wrong} of {len(expected)} right, smallest margin {min(margins):.2f}")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).resolve().parents[1] / "mindgen/demo/gpt2"
    parser.add_argument("--output", type=Path, default=default, metavar="DIR")
    folder = parser.parse_args().output
    folder.mkdir(parents=True, exist_ok=True)
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    answers = {example.prompt: example.answers[BASE] for example in all_examples() if BASE in example.answers}
    texts = [prompt + answer for prompt, answer in answers.items()]
    train_model(train_tokenizer(texts, folder), texts, folder)
    print(f"trained in {time.monotonic() - started:.0f} s")

    counts = {prompt: answer for prompt, answer in answers.items() if answer.count(",") == SEQUENCE_LENGTH - 2}
    checked = PROMPTS | dict(list(counts.items())[::7])
    wrong = sum(count_wrong_answers(checked, folder, dtype) for dtype in (torch.float32, torch.bfloat16))
    if wrong:
        raise SystemExit(f"{wrong} answers are wrong")


if __name__ == "__main__":
    main()
