"""`mindgen convert`: round trips are exact, and what is written is the same model."""

import json

import mindspore
import numpy as np
import pytest
import torch
from gguf_models import write_gguf
from probe import Probe
from safetensors.numpy import load_file, save_file
from scratch_gpt import SIZES, random_weights, save
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
    embedding = "embedding.word_embeddings.weight" if "qwen3" in kind else "model.tok_embeddings.embedding_weight"
    assert embedding in names and not any("q_proj" in name or "q_norm" in name for name in names)
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


GPT2_OF_MINDFORMERS = {
    "ln_1.": "layernorm1.", "ln_2.": "layernorm2.", "attn.c_proj.": "attention.projection.",
    "mlp.c_fc.": "output.mapping.", "mlp.c_proj.": "output.projection.",
}  # fmt: skip


def gpt2_of_mindformers(tensors):
    """As mindformers/models/gpt2/convert_weight.py does."""
    made = {
        "backbone.embedding.word_embedding.embedding_table": tensors["transformer.wte.weight"],
        "backbone.embedding.position_embedding.embedding_table": tensors["transformer.wpe.weight"],
        "backbone.layernorm.gamma": tensors["transformer.ln_f.weight"],
        "backbone.layernorm.beta": tensors["transformer.ln_f.bias"],
    }
    for name, values in tensors.items():
        own = name.replace("transformer.h.", "backbone.blocks.")
        if ".c_attn." in name:
            for place, part in enumerate(np.split(values, 3, -1), start=1):
                made[own.replace("attn.c_attn", f"attention.dense{place}")] = part.T
        elif ".h." in name:
            for theirs, ours in GPT2_OF_MINDFORMERS.items():
                own = own.replace(theirs, ours)
            if "layernorm" in own:
                own = own.replace(".weight", ".gamma").replace(".bias", ".beta")
            made[own] = values
    return made


@pytest.mark.parametrize("file_format", ["safetensors", "ckpt"])
def test_a_gpt2_there_and_back(file_format, tmp_path):
    """Under MindFormers' names, which transposes a part of the linears."""
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    there = convert(folder, tmp_path / "there", "--names", "mindformers", "--format", file_format)
    if file_format == "ckpt":
        loaded = mindspore.load_checkpoint(str(there / "model.ckpt"))
        ours = {name: tensor.asnumpy() for name, tensor in loaded.items()}
    else:
        ours = load_file(there / "model.safetensors")
    theirs = gpt2_of_mindformers(load_file(folder / "model.safetensors"))
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        np.testing.assert_array_equal(ours[name], values, name)
    back = convert(there, tmp_path / "back")
    ours, theirs = load_file(back / "model.safetensors"), load_file(folder / "model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert json.loads((back / "config.json").read_text()) == json.loads((folder / "config.json").read_text())


def test_a_part_of_c_attn_that_is_missing(tmp_path, capsys):
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    there = convert(folder, tmp_path / "there", "--names", "mindformers")
    tensors = load_file(there / "model.safetensors")
    del tensors["backbone.blocks.1.attention.dense1.weight"]
    save_file(tensors, there / "model.safetensors")
    assert main(["convert", str(there), "--output", str(tmp_path / "x")]) == 1
    assert "there is no transformer.h.1.attn.q_proj.weight beside the others of q, k and v" in capsys.readouterr().err


def test_a_file_alone(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    made = convert(folder, tmp_path / "weights.ckpt", "--format", "ckpt", "--dtype", "bfloat16")
    assert made.is_file() and {each.name for each in tmp_path.iterdir()} == {"model", "weights.ckpt"}
    loaded, expected = mindspore.load_checkpoint(str(made)), load_file(folder / "model.safetensors")
    assert loaded.keys() == expected.keys()
    name = "model.layers.0.mlp.up_proj.weight"
    rounded = torch.from_numpy(expected[name]).bfloat16().float().numpy()
    np.testing.assert_array_equal(loaded[name].float().asnumpy(), rounded)


def test_mistakes(tmp_path, capsys):
    folder = make_model("gpt2", tmp_path / "model", torch.float32)
    scratch = make_tokenizer("byte_level_bpe", save(tmp_path / "x.pt", random_weights(), SIZES).parent) / "x.pt"
    capsys.readouterr()
    for source, flags, code, message in (
        (folder, ["--output", str(folder)], 1, "is there already; name a new folder"),
        (folder, ["--output", "x.gguf"], 2, "x.gguf ends in .gguf, and what is written is safetensors"),
        (folder, ["--dtype", "q8_0"], 2, "q8_0 is written as GGUF only, not as safetensors"),
        (scratch, ["--names", "mindformers"], 1, "MindFormers has no names for a GPTModel"),
        (scratch, ["--format", "gguf"], 1, "a GPTModel is not written as GGUF, only"),
    ):
        target = [] if "--output" in flags else ["--output", str(tmp_path / "x")]
        assert main(["convert", str(source), *flags, *target]) == code
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-5])
    assert main(["convert", str(folder), "--output", str(tmp_path / "x")]) == 1
    assert "truncated or damaged" in capsys.readouterr().err
    assert not {each.name for each in tmp_path.iterdir()} & {"x", ".x.partial"}
