"""Checkpoints of the from-scratch GPT: their own forward pass in float64 is the oracle."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from probe import Probe
from scratch_gpt import SIZES, generate, logits, make_lora, random_weights, save
from tiny_tokenizers import make_tokenizer

from mindgen import LLM, SamplingParams
from mindgen.cli.scratch_generate import _sampling
from mindgen.errors import CheckpointError, ModelError, UsageError
from mindgen.store.find_model import find_model
from mindgen.store.torch_folder import torch_folder
from mindgen.text.tokenizer import load_tokenizer

PROMPT = np.random.default_rng(0).integers(3, SIZES["vocab_size"], 9).tolist()
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path):
    """With a tokenizer."""
    (tmp_path / "run").mkdir()
    return make_tokenizer("byte_level_bpe", tmp_path / "run")


@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_those_of_the_training(dtype, activation, folder):
    weights = random_weights()
    path = save(
        folder / "x.pt", weights, {**SIZES, "activation": activation, "dropout": 0.1, "use_tensor_parallel": False}
    )
    ours = Probe(find_model(path), dtype).logits([PROMPT])[0]
    expected = logits(weights, PROMPT, exact=activation == "gelu")[-1]
    bound = 1e-4 if dtype == "float32" else 0.15 * np.abs(expected).max()
    np.testing.assert_allclose(ours, expected, atol=bound)


def test_the_two_activations_differ(folder):
    weights = random_weights()
    both = [logits(weights, PROMPT, exact=exact)[-1] for exact in (True, False)]
    assert np.abs(both[0] - both[1]).max() > 1e-3


def test_sizes_are_told_where_the_file_has_none(folder):
    weights = random_weights()
    path = save(folder / "x.pt", weights)
    with pytest.raises(
        UsageError, match="has no configuration: say --vocab_size, --max_position_embeddings, --n_layers"
    ):
        find_model(path)
    ours = Probe(torch_folder(path, SIZES), "float32").logits([PROMPT])[0]
    np.testing.assert_allclose(ours, logits(weights, PROMPT)[-1], atol=1e-4)


def test_the_file_counts_and_says_so(folder, capsys):
    path = save(folder / "x.pt", random_weights(), SIZES)
    torch_folder(path, {**SIZES, "n_heads": 8})
    assert "says n_heads 4, and 8 was told: the file counts" in capsys.readouterr().err


def test_a_tied_head_may_be_left_out_or_stored(folder):
    weights = random_weights()
    weights["lm_head.weight"] = weights["token_embedding.weight"]
    expected = logits(weights, PROMPT)[-1]
    stored = save(folder / "stored.pt", weights, SIZES)
    left_out = save(
        folder / "left_out.pt", {name: each for name, each in weights.items() if "lm_head" not in name}, SIZES
    )
    for path in (stored, left_out):
        np.testing.assert_allclose(Probe(find_model(path), "float32").logits([PROMPT])[0], expected, atol=1e-4)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_what_data_parallel_and_compiled_training_put_before_names_is_left_out(prefix, folder):
    """The head is the file's own, not taken for a tied one."""
    weights = random_weights()
    path = save(folder / "x.pt", {f"{prefix}{name}": each for name, each in weights.items()}, SIZES)
    ours = Probe(find_model(path), "float32").logits([PROMPT])[0]
    np.testing.assert_allclose(ours, logits(weights, PROMPT)[-1], atol=1e-4)


def test_the_part_of_a_tensor_parallel_rank_is_refused(folder):
    weights = random_weights()
    for name in list(weights):
        if "qkv_proj" in name:
            weights[name] = weights[name][: 3 * 16]
    path = save(folder / "x.pt", weights, {**SIZES, "use_tensor_parallel": True})
    with pytest.raises(
        CheckpointError, match=r"has shape \(48, 32\).*the part of one rank of a tensor-parallel training"
    ):
        Probe(find_model(path), "float32")


def test_errors_name_the_file_that_is_known(folder, tmp_path):
    path = save(folder / "x.pt", random_weights(), {**SIZES, "n_heads": 5})
    with pytest.raises(ModelError, match=r"run/x.pt/config: a hidden size of 32 does not divide into 5 heads"):
        find_model(path)
    assert not list((tmp_path / "cache").rglob("config.json"))


def test_damage_goes_before_a_missing_tokenizer(tmp_path):
    path = save(tmp_path / "x.pt", random_weights(), SIZES)
    with pytest.raises(ModelError, match="has no tokenizer for x.pt"):
        find_model(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="x.pt is no zip file of torch, or damaged"):
        find_model(path)


def test_other_checkpoints_are_named(folder):
    torch.save({"model": {"layer.weight": torch.ones(2)}}, folder / "x.pt")
    with pytest.raises(ModelError, match=r"no checkpoint of the from-scratch GPT \(token_embedding.weight is missing"):
        find_model(folder / "x.pt")
    torch.save({"step": 3}, folder / "y.pt")
    with pytest.raises(CheckpointError, match="has no state dict: expected tensors by name"):
        find_model(folder / "y.pt")


COMMAND = [sys.executable, "-m", "mindgen", "generate"]


def as_flags(sizes):
    return [text for name, size in sizes.items() for text in (f"--{name.replace('_', '-')}", str(size))]


def run_command(folder, *flags, **environment):
    return subprocess.run([*COMMAND, *flags], capture_output=True, encoding="utf-8", cwd=folder)


@pytest.mark.parametrize("with_config", [True, False])
def test_the_command_continues_beyond_the_last_position(with_config, folder):
    """Greedy, 40 tokens with 24 positions: as generate.py with its sliding window."""
    weights = random_weights(3)
    path = save(folder / "x.pt", weights, SIZES if with_config else None)
    tokenizer = load_tokenizer(folder)
    prompt = "Hello world"
    done = run_command(
        folder, "--checkpoint-path", path.name, "--tokenizer-name", ".", *as_flags(SIZES), "--dropout", "0.0",
        "--prompt", prompt, "--max-new-tokens", "40", "--temperature", "0.99", "--top-k", "0", "--top-p", "0.99",
        "--stop-on-eos", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ids = generate(weights, tokenizer.encode(prompt, add_special_tokens=False), 40, tokenizer.eos_id, 24)
    lines = done.stdout.split("\n", 3)
    assert lines[:3] == ["Using device: cpu", "Loading checkpoint from x.pt...", f"Prompt: {prompt}"]
    assert lines[3] == f"Generated text: {tokenizer.decode(ids)}\n"


def test_the_command_samples_and_refuses(folder):
    save(folder / "x.pt", random_weights(), SIZES)
    sampled = run_command(
        folder, "--checkpoint-path", "x.pt", "--prompt", "Hello", "--max-new-tokens", "8", "--do-sample",
        "--temperature", "0.99", "--top-k", "40", "--top-p", "0.99",
    )  # fmt: skip
    assert sampled.returncode == 0, sampled.stderr
    assert re.search("^Generated text: Hello", sampled.stdout, re.MULTILINE)
    for flags, message in (
        (["--device", "cuda"], "--device cuda: mindgen runs on cpu, npu, ascend"),
        (["--tokenizer-name", "nowhere"], "no such model folder: nowhere"),
        (["--tokenizer-name", "gpt2"], "--tokenizer_name gpt2 is mindgen's embedded demonstration of 512 tokens, and"),
        (["--max-new-tokens", "x"], "--max_new_tokens cannot be 'x': expected an integer"),
        (["--adapter_id", "A9"], "A9"),
        (["--adapter_id", "A1", "A2"], "one prompt with one adapter, not 1 with 2"),
        (["--model", "demo", "--min-p", "0.5", "--tp", "2"], "with --min_p, --model, --tensor_parallel_size: for"),
        (["--output", "jsonl", "--chat"], "does not go with --chat, --output: for these pass the file as --model"),
    ):
        refused = run_command(folder, "--checkpoint-path", "x.pt", "--prompt", "Hello", *flags)
        assert refused.returncode != 0
        assert message in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize(
    "flags, expected",
    [
        ({}, (0, 0, 1)),
        ({"temperature": 0.5, "top_k": 5, "top_p": 0.5}, (0, 0, 1)),  # without do_sample
        ({"do_sample": True}, (1, 0, 1)),
        ({"do_sample": True, "temperature": 0.5, "top_k": 5, "top_p": 0.9}, (0.5, 5, 0.9)),
        ({"do_sample": True, "temperature": 0.0, "top_k": 5}, (0, 0, 1)),
        ({"do_sample": True, "temperature": -1.0}, (0, 0, 1)),
        ({"do_sample": True, "top_k": 0, "top_p": 0.0}, (1, 0, 1)),
        ({"do_sample": True, "top_k": -3, "top_p": -0.5}, (1, 0, 1)),
        ({"do_sample": True, "top_p": 1.5}, (1, 0, 1)),
    ],
)
def test_sampling_flags_mean_what_they_mean_to_the_training(flags, expected):
    params = _sampling({f"generation.{name}": value for name, value in flags.items()})
    temperature, top_k, top_p = expected
    assert params == {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": None, "max_tokens": 100}


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_what_is_no_number_is_not_taken_for_greedy(name):
    with pytest.raises(UsageError, match=f"--{name} cannot be nan"):
        _sampling({"generation.do_sample": True, f"generation.{name}": float("nan")})


def test_the_command_answers_with_the_adapter(folder):
    """Beyond the last position, too."""
    weights = random_weights(3)
    save(folder / "x.pt", weights, SIZES)
    _, merged = make_lora(weights, folder / "A1")
    (folder / "lora_adapter.json").write_text(json.dumps({"A1": "A1"}))
    done = run_command(
        folder, "--checkpoint-path", "x.pt", "--prompt", "Hello world", "--max-new-tokens", "40", "--adapter_id", "A1",
        "--adapter_path", ".",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode("Hello world", add_special_tokens=False)
    base, adapted = (generate(each, ids, 40, tokenizer.eos_id, 24) for each in (weights, merged))
    assert base != adapted
    assert done.stdout.endswith(f"Generated text: {tokenizer.decode(adapted)}\n")


def test_a_seed_gives_the_same_text_again(folder):
    save(folder / "x.pt", random_weights(), SIZES)
    seeds = ("1", "1", "2")
    texts = [
        run_command(
            folder, "--checkpoint-path", "x.pt", "--prompt", "Hello", "--max-new-tokens", "30", "--do-sample", "--seed",
            seed,
        ).stdout
        for seed in seeds
    ]  # fmt: skip
    assert texts[0] == texts[1] != texts[2]


def test_an_llm_takes_the_file(folder):
    path = save(folder / "x.pt", random_weights(), SIZES)
    (output,) = LLM(path).generate("Hello", SamplingParams(temperature=0, max_tokens=4))
    assert len(output.outputs[0].token_ids) == 4
