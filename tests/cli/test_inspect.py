"""`mindgen inspect`: what files and folders are, and whether they are served."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from gguf_models import write_gguf
from safetensors.torch import load_file, save_file
from scratch_gpt import SIZES, random_weights, save
from tiny_models import make_model
from tiny_tokenizers import make_tokenizer

from mindgen import LLM
from mindgen.cli.main import main
from mindgen.errors import ModelError
from mindgen.store.inspection import inspect as inspect_model

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("own_cache")


def inspect(path, capsys) -> tuple[int, str]:
    """The exit code, and what is printed, with lines joined."""
    code = main(["inspect", str(path)])
    captured = capsys.readouterr()
    return code, " ".join((captured.out + captured.err).split())


def test_what_is_served(tmp_path, capsys):
    model = make_tokenizer(
        "sentencepiece_bpe", make_model("qwen2-tied", tmp_path / "model", torch.bfloat16, vocab_size=330)
    )
    code, shown = inspect(model, capsys)
    assert code == 0
    for text in (
        "safetensors",
        "Qwen2ForCausalLM",
        "2 layers, hidden 96, 6 heads",
        "bfloat16",
        "sentencepiece, 330",
        "yes",
    ):
        assert text in shown, shown
    small = make_model("llama-multi-head", tmp_path / "small", torch.float32, intermediate_size=192)
    code, shown = inspect(write_gguf(small, tmp_path / "x.gguf", "Q4_0"), capsys)
    assert code == 0 and "GGUF" in shown and "Q4_0 16, F32 5" in shown, shown
    make_tokenizer("byte_level_bpe", tmp_path)
    code, shown = inspect(save(tmp_path / "x.pt", random_weights(), SIZES), capsys)
    assert code == 0 and "torch checkpoint" in shown and "GPTModel" in shown, shown


def test_what_is_not(tmp_path, capsys):
    model = make_tokenizer("byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32))
    code, shown = inspect(model, capsys)
    assert code == 1 and "the tokenizer has 330 tokens, and the model 320" in shown, shown
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace("Qwen2ForCausalLM", "MambaForCausalLM"))
    code, shown = inspect(model, capsys)
    assert code == 1 and "architecture MambaForCausalLM is not" in shown, shown
    code, shown = inspect(model / "model.safetensors", capsys)
    assert code == 1 and "is one file of a" in shown
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-1])
    code, shown = inspect(model, capsys)
    assert code == 1 and "mindgen: error:" in shown
    code, shown = inspect(tmp_path / "nowhere", capsys)
    assert code == 1 and "no such model folder" in shown


def _without(tensors):
    del tensors["model.layers.1.mlp.up_proj.weight"]


def _with_another(tensors):
    tensors["model.layers.1.mlp.other.weight"] = torch.ones(2)


def _wider(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.ones(200, 95)


def _of_integers(tensors):
    tensors["model.norm.weight"] = torch.ones(96, dtype=torch.int32)


def _with_a_head(tensors):
    tensors["lm_head.weight"] = torch.ones(329, 96)


@pytest.mark.parametrize(
    "change, message",
    [
        (_without, "the checkpoint has no tensor 'model.layers.1.mlp.up_proj.weight'"),
        (_with_another, "the checkpoint has 1 tensors that Qwen2ForCausalLM does not"),
        (_wider, "the checkpoint's 'model.layers.1.mlp.up_proj.weight' has shape (200, 95)"),
        (_of_integers, "the checkpoint's 'model.norm.weight' is int32"),
        (_with_a_head, "the checkpoint's 'lm_head.weight' has shape (329, 96)"),
    ],
)
def test_what_loading_refuses(change, message, tmp_path):
    """In the same words."""
    model = make_tokenizer(
        "byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=330)
    )
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors")
    (problem,) = inspect_model(str(model)).problems
    assert message in problem
    with pytest.raises(ModelError) as refused:
        LLM(model)
    assert str(refused.value) == problem


def test_gguf_with_another_width(tmp_path):
    model = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    assert not inspect_model(str(write_gguf(model, tmp_path / "x.gguf"))).problems
    other = write_gguf(model, tmp_path / "y.gguf", settings={"llama.feed_forward_length": 192})
    assert "config.json asks for (192, 96)" in inspect_model(str(other)).problems[0]


@pytest.mark.parametrize("tied_as", ["head", "both"])
def test_a_tied_head_may_be_stored(tied_as, tmp_path):
    model = make_tokenizer(
        "byte_level_bpe", make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=330)
    )
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    if tied_as == "head":
        del tensors["model.embed_tokens.weight"]
    save_file(tensors, model / "model.safetensors")
    assert not inspect_model(str(model)).problems


def test_what_is_no_model(tmp_path, capsys):
    code, shown = inspect(ROOT / "adapters/A1", capsys)
    assert code == 0 and "adapter, safetensors" in shown and "56, 0.1 M elements" in shown, shown
    code, shown = inspect(make_tokenizer("byte_level_bpe", tmp_path), capsys)
    assert code == 1 and "tokenizers BPE, 330 tokens" in shown and "has a tokenizer alone" in shown, shown
    (tmp_path / "adapter_config.json").write_text("{")
    code, shown = inspect(tmp_path, capsys)
    assert code == 1 and "adapter_config.json is not valid JSON" in shown, shown


def test_what_is_unknown(tmp_path, capsys, monkeypatch):
    """One line each that says what it is, at once; nothing waits for a pipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no model")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.gguf")
    (tmp_path / "short.gguf").write_bytes(b"GGUF" + bytes(90))
    (tmp_path / "adapter").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(ROOT / "adapters" / "A1" / name, tmp_path / "adapter")
    for name, message in (
        ("notes.txt", "notes.txt is no file that mindgen knows: expected one ending in .safetensors"),
        ("pipe.gguf", "pipe.gguf is no folder, and no file that holds a whole model"),
        ("empty", "empty has no config.json"),
        ("short.gguf", "short.gguf is no readable GGUF file"),
        ("adapter/adapter_model.safetensors", "is an adapter's: `mindgen adapters"),
    ):
        code, shown = inspect(name, capsys)
        assert code == 1 and message in shown and "Traceback" not in shown, shown
    code, shown = inspect("", capsys)
    assert code == 1 and "a model's name is empty" in shown


def test_mindspore_is_not_needed(tmp_path):
    code = "import sys; from mindgen.cli.main import main; main(['inspect', 'demo']); print('mindspore' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "False", done.stderr
