"""MindFormers' convert_weight.py: its flags, on files and folders, there and back."""

import subprocess
import sys
from pathlib import Path

import mindspore
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_model

from mindgen.cli.main import main

TOOL = Path(__file__).parents[2] / "tools" / "convert_weight.py"


@pytest.fixture
def folder(tmp_path):
    """With the weights in a .bin of torch."""
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def run(*flags):
    return main(["convert_weight", *map(str, flags)])


def test_the_tool_on_a_torch_file(folder, tmp_path):
    flags = ["--model", "llama", "--input_path", folder / "pytorch_model.bin", "--output_path", tmp_path / "ms.ckpt"]
    result = subprocess.run([sys.executable, TOOL, *flags, "--dtype", "bf16"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    loaded = mindspore.load_checkpoint(str(tmp_path / "ms.ckpt"))
    weights = torch.load(folder / "pytorch_model.bin")
    assert len(loaded) == len(weights) and "model.layers.1.feed_forward.w3.weight" in loaded
    np.testing.assert_array_equal(
        loaded["model.layers.1.attention.wq.bias"].float().asnumpy(),
        weights["model.layers.1.self_attn.q_proj.bias"].bfloat16().float().numpy(),
    )


@pytest.mark.parametrize("has_config", [True, False])
def test_there_and_back(has_config, folder, tmp_path):
    if not has_config:
        (folder / "config.json").unlink()
    expected = torch.load(folder / "pytorch_model.bin")
    source = folder if has_config else folder / "pytorch_model.bin"
    assert run("--model", "qwen2", "--input_path", source, "--output_path", tmp_path / "ms", "--layers", 2) == 0
    there = tmp_path / "ms.ckpt"
    back = ["--reversed", "--input_path", there, "--output_path", tmp_path / "back.safetensors"]
    assert run("--model", "qwen2", *back, "--qkv_concat", "False", "--is_pretrain", "false") == 0
    ours = load_file(tmp_path / "back.safetensors")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_gpt_without_a_configuration(tmp_path):
    """And with names as torch's GPT2Model has them, which MindFormers' own tool takes."""
    model = make_model("gpt2", tmp_path / "model", torch.float32)
    weights = load_file(model / "model.safetensors")
    torch.save({name.removeprefix("transformer."): each for name, each in weights.items()}, tmp_path / "gpt2.bin")
    flags = ["--input_path", tmp_path / "gpt2.bin", "--output_path", tmp_path / "ms.ckpt", "--dtype", "fp32"]
    assert run("--model", "gpt", *flags, "--layers", "2") == 0
    loaded = mindspore.load_checkpoint(str(tmp_path / "ms.ckpt"))
    np.testing.assert_array_equal(
        loaded["backbone.blocks.1.attention.dense3.weight"].asnumpy(),
        weights["transformer.h.1.attn.c_attn.weight"][:, -96:].T.numpy(),
    )
    np.testing.assert_array_equal(
        loaded["backbone.blocks.1.output.mapping.weight"].asnumpy(), weights["transformer.h.1.mlp.c_fc.weight"].numpy()
    )
    back = ["--reversed", "--input_path", tmp_path / "ms.ckpt", "--output_path", tmp_path / "back.safetensors"]
    assert run("--model", "gpt", *back) == 0
    ours = load_file(tmp_path / "back.safetensors")
    assert ours.keys() == weights.keys() and all(torch.equal(ours[name], weights[name]) for name in weights)


def test_bf16_is_the_default_of_qwen2_5(folder, tmp_path):
    assert run("--model", "qwen2_5", "--input_path", folder, "--output_path", tmp_path / "ms.safetensors") == 0
    assert {tensor.dtype for tensor in load_file(tmp_path / "ms.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--model", "telechat"], "--model telechat is not served; served are llama, yi, qwen2, qwen2_5, gpt"),
        (["--qkv_concat", "True"], "--qkv_concat True is not served: fused weights are not written"),
        (["--qkv_concat", "maybe"], "--qkv_concat must be True or False, not 'maybe'"),
        (["--is_pretrain", "1"], "--is_pretrain 1 is not served: it is for swin"),
        (["--telechat_type", "telechat_12b"], "--telechat_type is not served"),
        (["--layers", "12"], "has 2, and all are converted"),
        (["--reversed", "--output_path", "x.bin"], "torch's files are not written; let the name end in .safetensors"),
        (["--model", "gpt"], "is a Qwen2ForCausalLM, whose names are not those of GPT2LMHeadModel"),
        (["--input_path", "nowhere.bin"], "no such file or folder: nowhere.bin"),
    ],
)
def test_what_is_refused(flags, message, folder, tmp_path, capsys):
    given = ["--model", "llama", "--input_path", folder, "--output_path", tmp_path / "ms.ckpt"]
    capsys.readouterr()
    assert run(*given, *flags) in (1, 2)
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"model"}


def test_unknown_flags_and_damaged_files(folder, tmp_path, capsys):
    given = ["--model", "llama", "--input_path", folder, "--output_path", tmp_path / "ms.ckpt"]
    with pytest.raises(SystemExit):
        run(*given, "--config_path", "x.yaml")
    assert "unrecognized arguments: --config_path x.yaml" in capsys.readouterr().err
    content = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    assert run(*given) == 1
    assert "pytorch_model.bin" in capsys.readouterr().err and {each.name for each in tmp_path.iterdir()} == {"model"}
