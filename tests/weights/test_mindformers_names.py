"""Checkpoints with MindFormers' names that are refused; tests/models/test_every_format.py has those that are served."""

import pytest
import torch
from probe import Probe
from safetensors.torch import load_file, save_file
from tiny_models import make_model

from mindgen.errors import CheckpointError


def test_fused_weights_are_refused(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    own = [tensors.pop(f"model.layers.0.self_attn.{part}_proj.weight") for part in "qkv"]
    save_file({**tensors, "model.layers.0.attention.w_qkv.weight": torch.cat(own)}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"w_qkv.weight is one of MindFormers' fused weights .*qkv_concat: False"):
        Probe(folder, "float32")


def test_a_tensor_under_two_names_is_refused(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "model.norm_out.weight": tensors["model.norm.weight"].clone()}, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="model.norm.weight is there under two names"):
        Probe(folder, "float32")
