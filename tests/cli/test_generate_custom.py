"""scripts/generate_custom.py: the samples of MindFormers' manual, where weights may come from, and mistakes."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_models import load_oracle
from transformers import AutoTokenizer

from mindgen.cli.main import main
from mindgen.store import embedded
from mindgen.weights.folder import map_weights
from mindgen.weights.formats.mindspore_ckpt import write_mindspore_file
from mindgen.weights.mapped_tensor import MappedTensor

SCRIPTS = Path(__file__).parents[2] / "scripts"
FOLDER = embedded.find_embedded("gpt2")
PROMPTS = ["An increasing sequence: one,", "I love Beijing,"]
TEXTS = [
    "An increasing sequence: one, two, three, four, five, six.",
    "I love Beijing, because it is the capital of China.",
]


@pytest.fixture(autouse=True)
def no_input_data(monkeypatch):
    monkeypatch.delenv("INPUT_DATA", raising=False)


@pytest.fixture
def texts(capsys):
    """What the command prints, of which only the list goes to standard output."""

    def run(*arguments: object) -> list[str]:
        assert main(["generate_custom", *map(str, arguments)]) == 0
        return ast.literal_eval(capsys.readouterr().out)

    return run


def test_the_script_with_the_prompt_in_the_environment():
    command = [sys.executable, "generate_custom.py", "--model_type", "gpt2", "--checkpoint_path", str(FOLDER)]
    environment = {**os.environ, "INPUT_DATA": PROMPTS[0]}
    result = subprocess.run(command, cwd=SCRIPTS, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout == f"{TEXTS[:1]}\n", result.stderr


def test_prompts_of_a_file_equal_transformers(texts, tmp_path, monkeypatch):
    (tmp_path / "input.txt").write_text("\n".join(PROMPTS) + "\n")
    oracle, tokenizer = load_oracle(FOLDER, torch.float32), AutoTokenizer.from_pretrained(FOLDER)
    expected = [
        tokenizer.decode(oracle.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=60)[0][:-1])
        for prompt in PROMPTS
    ]
    assert texts("--batch_size", 2, "--input_data", tmp_path / "input.txt") == expected == TEXTS
    monkeypatch.setenv("INPUT_DATA", str(tmp_path / "input.txt"))
    assert texts("--model_type", FOLDER, "--use_past", "True", "--data_parallel", 1) == expected


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_checkpoints_of_a_rank(texts, tmp_path, suffix):
    (tmp_path / "rank_0").mkdir()
    old, new = (tmp_path / "rank_0" / f"{name}{suffix}" for name in ("old", "new"))
    old.write_bytes(b"")
    os.utime(old, (0, 0))
    tensors = map_weights(FOLDER)
    if suffix == ".ckpt":
        write_mindspore_file(new, tensors)
    else:
        save_file(
            {name: torch.tensor(each.data.view("int16")).view(torch.bfloat16) for name, each in tensors.items()}, new
        )
    for path in (tmp_path, new):
        assert texts("--checkpoint_path", path, "--input_data", PROMPTS[0]) == TEXTS[:1]


def test_checkpoints_of_mindformers(texts, tmp_path):
    """Its names, and queries, keys and values apart as (out, in)."""
    names = {
        "transformer.wte.weight": "embedding.word_embedding.embedding_table",
        "transformer.wpe.weight": "embedding.position_embedding.embedding_table",
        "transformer.ln_f.weight": "layernorm.gamma",
        "transformer.ln_f.bias": "layernorm.beta",
    }
    layer = {
        "ln_1.weight": "layernorm1.gamma", "ln_1.bias": "layernorm1.beta", "ln_2.weight": "layernorm2.gamma",
        "ln_2.bias": "layernorm2.beta", "attn.c_proj.weight": "attention.projection.weight",
        "attn.c_proj.bias": "attention.projection.bias", "mlp.c_fc.weight": "output.mapping.weight",
        "mlp.c_fc.bias": "output.mapping.bias", "mlp.c_proj.weight": "output.projection.weight",
        "mlp.c_proj.bias": "output.projection.bias",
    }  # fmt: skip
    tensors = {}
    for name, tensor in map_weights(FOLDER).items():
        _, _, number, rest = name.split(".", 3) if ".h." in name else (*[""] * 3, name)
        block = f"backbone.blocks.{number}." if number else "backbone."
        if "c_attn" not in name:
            tensors[block + (names | layer)[rest]] = tensor
            continue
        for place, part in enumerate(np.split(tensor.data, 3, axis=-1), start=1):
            kind = name.rpartition(".")[2]
            tensors[f"{block}attention.dense{place}.{kind}"] = MappedTensor(tensor.dtype, part.T)
    (tmp_path / "rank_0").mkdir()
    write_mindspore_file(tmp_path / "rank_0" / "gpt2.ckpt", tensors)
    assert texts("--checkpoint_path", tmp_path, "--input_data", PROMPTS[0]) == TEXTS[:1]


def test_a_model_folder_goes_before_an_embedded_model_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gpt2").mkdir()
    assert embedded.find_embedded("gpt2") == FOLDER
    (tmp_path / "gpt2" / "config.json").write_text("{}")
    assert embedded.find_embedded("gpt2") is None


def test_sampling_and_lengths(texts):
    sampling = ["--do_sample", "True", "--temperature", 2.0, "--top_k", 50, "--top_p", 0.95, "--seed", 1]
    sampled = texts("--input_data", PROMPTS[0], *sampling, "--max_new_tokens", 20)
    assert sampled == texts("--input_data", PROMPTS[0], *sampling, "--max_new_tokens", 20) != TEXTS[:1]
    assert texts("--input_data", PROMPTS[0], "--top_k", 1, "--max_new_tokens", 2) == [f"{PROMPTS[0]} two,"]
    tokens = AutoTokenizer.from_pretrained(FOLDER)(texts("--input_data", PROMPTS[0], "--seq_length", 12)[0]).input_ids
    assert len(tokens) == 12


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "no prompt: pass --input_data or set INPUT_DATA"),
        (["--batch_size", 3], "batch_size is 3, and prompts are 1"),
        (["--model_parallel", 2], "need --use_parallel True"),
        (["--model_parallel", 0], "must be at least 1, not 1 and 0"),
        (["--use_parallel", "maybe"], "use_parallel cannot be 'maybe'"),
        (["--model_type", "nothing"], "no such model folder: nothing"),
        (["--checkpoint_path", "nowhere"], "no such file or folder: nowhere"),
        (["--checkpoint_path", SCRIPTS], "has no checkpoint"),
        (["--top_p", 2], "top_p"),
        (["--seq_length", 0], "max_model_len"),
    ],
)
def test_mistakes_get_one_line(capsys, flags, message):
    prompt = ["--input_data", PROMPTS[0]] if flags else []
    assert main(["generate_custom", *prompt, *map(str, flags)]) in (1, 2)
    result = capsys.readouterr()
    assert result.out == "" and result.err.count("\n") == 1 and message in result.err
