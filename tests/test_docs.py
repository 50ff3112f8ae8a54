"""The pages about the inside of mindgen say what is there."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scratch_gpt
import torch
import transformers
from gguf_models import write_gguf
from hub_server import Hub, serving
from mindformers_files import mindformers_llama, predict_yaml, save_ckpt, write_mindformers
from probe import Probe
from safetensors.torch import load_file
from tiny_models import KINDS, VOCAB_SIZE, load_oracle, make_model, oracle_logits
from tiny_tokenizers import make_tokenizer

from mindgen.cli.main import main
from mindgen.errors import CheckpointError
from mindgen.weights import architectures as architecture_files
from mindgen.weights import formats as format_files
from mindgen.weights.architecture import architectures
from mindgen.weights.weight_files import find_weights
from mindgen.weights.weight_format import weight_formats

ROOT = Path(__file__).parents[1]
ROOMS = ("cli", "llm.py", "loop", "text", "engine", "runner", "models", "layers", "adapters", "weights", "kernels")
PROMPT = np.random.default_rng(0).integers(3, VOCAB_SIZE, 9).tolist()


def example(page: str) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)
    return code


def definitions(path: Path) -> set[str]:
    """Functions, classes and their methods, of this file."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


def test_the_life_of_a_token_goes_down():
    page = (ROOT / "docs/life_of_a_token.md").read_text()
    hops = re.findall(r"^\d+\. `(mindgen/[\w/.]+): ([\w.]+)`", page, re.MULTILINE)
    assert 8 < len(hops) <= 14
    for path, name in re.findall(r"`(mindgen/[\w/.]+): ([\w.]+)`", page):
        assert name in definitions(ROOT / path), f"{path} has no {name}"
    rooms = [ROOMS.index(path.split("/")[1]) for path, _ in hops]
    assert rooms == sorted(rooms) and rooms[0] == 0


@pytest.fixture
def added(monkeypatch, tmp_path):
    """Puts a page's example among the files of its kind, for the time of a test."""

    def add(page: str, package, table) -> None:
        (tmp_path / "files").mkdir()
        (tmp_path / "files" / f"{page.removesuffix('.md')}.py").write_text(example(page))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "files")])
        table.cache_clear()
        cleared.append(table)

    cleared: list = []
    yield add
    monkeypatch.undo()
    for table in cleared:
        table.cache_clear()


def test_the_example_of_a_model_equals_transformers(added, tmp_path, monkeypatch):
    added("adding_a_model.md", architecture_files, architectures)
    monkeypatch.setitem(KINDS, "seed-oss", (transformers.SeedOssConfig, 6, 2, 16, {"attention_out_bias": True}))
    folder = make_model("seed-oss", tmp_path / "model", torch.float32)
    expected = oracle_logits(load_oracle(folder, torch.float32), PROMPT)
    np.testing.assert_allclose(Probe(folder, "float32").logits([PROMPT])[0], expected, rtol=1e-4, atol=1e-4)


def test_the_example_of_a_format_is_loaded(added, tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    expected = Probe(folder, "float32").logits([PROMPT])
    tensors = {name: tensor.numpy() for name, tensor in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    np.savez(folder / "model.npz", **tensors)
    added("adding_a_format.md", format_files, weight_formats)
    np.testing.assert_array_equal(Probe(folder, "float32").logits([PROMPT]), expected)
    (folder / "model.npz").write_bytes(b"no archive")
    with pytest.raises(CheckpointError, match="is no .npz file, or damaged"):
        find_weights(folder, None, 1).map(0)


@pytest.fixture
def users_files(tmp_path, monkeypatch):
    """What docs/models.md names, tiny; the present folder."""
    sizes = {"vocab_size": 340, "num_hidden_layers": 2}
    for name, kind in (("Llama-3.2-1B", "llama-multi-head"), ("llama2_ms", "llama-multi-head"), ("old-gpt2", "gpt2")):
        make_tokenizer("sentencepiece_bpe", make_model(kind, tmp_path / name, torch.float32, **sizes))
    llama, gpt2 = tmp_path / "Llama-3.2-1B", tmp_path / "old-gpt2"
    save_ckpt(mindformers_llama(load_file(llama / "model.safetensors")), tmp_path / "llama.ckpt")
    predict_yaml(llama).rename(tmp_path / "predict_llama2_7b.yaml")
    write_mindformers(tmp_path / "llama2_ms", ".ckpt")
    torch.save(load_file(gpt2 / "model.safetensors"), gpt2 / "pytorch_model.bin")
    (gpt2 / "model.safetensors").unlink()
    small = make_model("qwen2-tied", tmp_path / "small", torch.float32, intermediate_size=192)
    write_gguf(small, tmp_path / "Qwen2.5-0.5B-Q8_0.gguf", "Q8_0")
    (tmp_path / "run").mkdir()
    make_tokenizer("byte_level_bpe", tmp_path / "run")
    scratch_gpt.save(tmp_path / "run" / "x.pt", scratch_gpt.random_weights(), scratch_gpt.SIZES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_about_models(users_files, own_cache, capsys):
    commands = re.findall(r"^mindgen (.+)$", (ROOT / "docs/models.md").read_text(), re.MULTILINE)
    assert len(commands) == 14
    for command in commands:
        if "ORG/NAME" not in command:
            assert main(shlex.split(command)) == 0, command
            assert "Hello world" in capsys.readouterr().out or not command.startswith("generate"), command
    (of_hub,) = [command for command in commands if "ORG/NAME" in command]
    with serving(Hub({"ORG/NAME": users_files / "Llama-3.2-1B"})) as address:
        environment = {**os.environ, "HF_ENDPOINT": address, "HF_HOME": str(users_files / "hub")}
        command = [sys.executable, "-m", "mindgen", *shlex.split(of_hub)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, env=environment)
    assert done.returncode == 0 and done.stdout.startswith("Hello world"), done.stderr
