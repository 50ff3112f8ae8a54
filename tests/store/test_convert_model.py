"""`mindgen convert`: round trips are exact, and what is written is the same model."""

import json
import subprocess
import sys

import mindspore
import numpy as np
import pytest
import torch
from gguf_models import write_gguf
from probe import Probe
from safetensors.numpy import load_file
from tiny_models import VOCAB_SIZE, make_model
from tiny_tokenizers import make_tokenizer

from mindgen.cli.main import main
from mindgen.store.find_model import find_model
from mindgen.weights.folder import map_weights

PROMPT = np.random.default_rng(0).integers(3, VOCAB_SIZE, 9).tolist()
pytestmark = pytest.mark.usefixtures("own_cache")


def convert(source, target, *flags):
    assert main(["convert", str(source), "--output", str(target), *flags]) == 0
    return target


@pytest.mark.parametrize("kind", ["llama3-grouped-tied", "qwen2-tied", "qwen3-untied"])
@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_there_and_back(kind, file_format, tmp_path):
    folder = make_tokenizer("byte_level_bpe", make_model(kind, tmp_path / "model", torch.bfloat16, "100KB"))
    there = convert(folder, tmp_path / "there", "--names", "mindformers", "--format", file_format)
    names = set(map_weights(there))
    assert "model.tok_embeddings.embedding_weight" in names and not any("q_proj" in name for name in names)
    back = convert(there, tmp_path / "back")
    ours, theirs = map_weights(back), map_weights(folder)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name].data, theirs[name].data) for name in ours)
    assert json.loads((back / "config.json").read_text()) == json.loads((folder / "config.json").read_text())
    assert (back / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    np.testing.assert_array_equal(Probe(there, "bfloat16").logits([PROMPT]), Probe(folder, "bfloat16").logits([PROMPT]))


def test_mindspore_reads_the_ckpt(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    there = convert(folder, tmp_path / "there", "--names", "mindformers", "--format", "ckpt")
    loaded = mindspore.load_checkpoint(str(there / "model.ckpt"))
    np.testing.assert_array_equal(
        loaded["model.layers.1.attention.wk.weight"].asnumpy(),
        load_file(folder / "model.safetensors")["model.layers.1.self_attn.k_proj.weight"],
    )


def test_gguf_becomes_a_folder(tmp_path):
    model = make_model("qwen2-tied", tmp_path / "model", torch.float32, intermediate_size=192)
    path = write_gguf(model, tmp_path / "x.gguf", "Q8_0")
    made = convert(path, tmp_path / "made", "--dtype", "float32")
    assert (made / "tokenizer.json").is_file() and not (made / "model.gguf").exists()
    ours = Probe(made, "float32").logits([PROMPT])
    np.testing.assert_array_equal(ours, Probe(find_model(path), "float32").logits([PROMPT]))


def test_what_was_quantised_becomes_bfloat16(tmp_path):
    """And the rest stays as it is; the folder says so, and computes what the GGUF computes."""
    model = make_model("qwen2-tied", tmp_path / "model", torch.float32, intermediate_size=192)
    path = write_gguf(model, tmp_path / "x.gguf", "Q8_0")
    made = convert(path, tmp_path / "made")
    dtypes = {name: tensor.dtype for name, tensor in map_weights(made).items()}
    assert dtypes["model.layers.0.mlp.down_proj.weight"] == "bfloat16"
    assert dtypes["model.norm.weight"] == "float32"
    assert json.loads((made / "config.json").read_text())["torch_dtype"] == "bfloat16"
    ours, theirs = (Probe(each, "bfloat16").logits([PROMPT]) for each in (made, find_model(path)))
    np.testing.assert_array_equal(ours, theirs)


def test_dtypes_are_rounded(tmp_path):
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    made = convert(folder, tmp_path / "made", "--dtype", "float16")
    tensors, originals = map_weights(made), load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {"float16"}
    name = "transformer.h.0.mlp.c_fc.weight"
    np.testing.assert_array_equal(tensors[name].data, originals[name].astype(np.float16))
    assert json.loads((made / "config.json").read_text())["torch_dtype"] == "float16"


def test_mistakes(tmp_path, capsys):
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    for flags, message in (
        (["--output", str(folder)], "is there already; name a new folder"),
        (["--output", str(tmp_path / "x"), "--names", "mindformers"], "names for a GPT2LMHeadModel are not written"),
    ):
        assert main(["convert", str(folder), *flags]) == 1
        assert message in capsys.readouterr().err
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    assert main(["convert", str(folder), "--output", str(tmp_path / "x")]) == 1
    assert not (tmp_path / "x").exists()


def test_a_killed_conversion_leaves_nothing_and_can_be_made_again(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    code = (
        "import os, sys; from mindgen.store import convert; from mindgen.cli.main import main\n"
        "convert._verify = lambda *_: os.kill(os.getpid(), 9)\n"
        f"main(['convert', {str(folder)!r}, '--output', {str(tmp_path / 'made')!r}])"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not (tmp_path / "made").exists()
    made = convert(folder, tmp_path / "made")
    assert map_weights(made).keys() == map_weights(folder).keys()
    assert {each.name for each in tmp_path.iterdir()} == {"model", "made"}
