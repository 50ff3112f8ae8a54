"""Weights stay in the mapped file; only those that lie side by side in one parameter are copied, once."""

import json
from pathlib import Path

import pytest
import torch
from gguf_models import write_gguf
from probe import Probe
from tiny_models import make_model

from mindgen.errors import ModelError
from mindgen.store.find_model import find_model


def mapped_file(address: int) -> str:
    """The file that the address is mapped from, or what else it is."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return line.split()[5] if len(line.split()) > 5 else ""
    return ""


def test_single_weights_are_the_file_itself(tmp_path, executor):
    folder = make_model("qwen3-untied", tmp_path, torch.bfloat16)
    probe = Probe(folder, "bfloat16", executor=executor)
    probe.logits([[3, 4, 5]])
    network = probe.runner._network
    layer = network.model.layers[1]
    for weight in (
        network.model.embed_tokens.weight,
        layer.mlp.down_proj.method.weight,
        layer.self_attn.o_proj.method.weight,
    ):
        assert mapped_file(weight.data_ptr()) == str(folder / "model.safetensors")
    assert not mapped_file(layer.mlp.gate_up_proj.method.weight.data_ptr()).endswith(".safetensors")


def resident_bytes(file: Path) -> int:
    """How much of the file is in this process's memory."""
    found, is_of_file = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.split()[0].endswith(":"):
            is_of_file = line.endswith(str(file))
        elif is_of_file and line.startswith("Rss:"):
            found += int(line.split()[1]) << 10
    return found


@pytest.mark.parametrize("quantization", ["Q8_0", "F16"])
def test_what_has_been_copied_or_unpacked_is_let_go_of(quantization, tmp_path, own_cache):
    model = make_model("qwen2-tied", tmp_path / "model", torch.float32, hidden_size=384, intermediate_size=2048)
    file = write_gguf(model, tmp_path / "model.gguf", quantization)
    folder = find_model(file)
    probe = Probe(folder, "bfloat16")
    assert file.stat().st_size > 5 << 20
    assert resident_bytes(file) < 1 << 20
    probe.logits([[3, 4, 5]])


def test_a_checkpoint_that_does_not_fit_the_configuration_is_refused(tmp_path, executor):
    folder = make_model("qwen2-tied", tmp_path, torch.bfloat16)
    raw = json.loads((folder / "config.json").read_text())
    del raw["layer_types"]  # whose length would be wrong as well
    config = json.dumps(raw)
    for old, new, expected in (
        ('"num_hidden_layers": 2', '"num_hidden_layers": 3', "no tensor 'model.layers.2.*and so 11 more of the"),
        ('"num_hidden_layers": 2', '"num_hidden_layers": 1', "12 tensors that Qwen2ForCausalLM does not"),
        ('"intermediate_size": 200', '"intermediate_size": 100', "has shape .*asks for .*and so 5 more of"),
        ('"Qwen2ForCausalLM"', '"BertModel"', "architecture BertModel is not served; served are, the near"),
        ('"hidden_act": "silu"', '"hidden_act": "gelu"', "hidden_act 'gelu' is not served"),
        ('"vocab_size": 320', '"vocab_size": "many"', "vocab_size must be a valid integer, not 'many'"),
        ('"num_key_value_heads": 2', '"num_key_value_heads": 4', "6 query heads do not divide among 4"),
        ('"rope_type": "default"', '"rope_type": "yarn"', "rope type 'yarn' is not served"),
    ):
        assert old in config
        (folder / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ModelError, match=expected):
            Probe(folder, "bfloat16", executor=executor)


def test_a_gpt2_that_is_not_served_is_refused(tmp_path):
    folder = make_model("gpt2", tmp_path, torch.bfloat16)
    config = (folder / "config.json").read_text()
    for old, new, expected in (
        ('"n_layer": 2', '"n_layer": 3', "no tensor 'transformer.h.2"),
        ('"n_inner": 200', '"n_inner": null', r"c_fc.weight' has shape \(200, 96\), config.json asks for \(384, 96\)"),
        ('"n_head": 6', '"n_head": 7', "a hidden size of 96 does not divide into 7 heads"),
        ('"gelu_new"', '"relu"', "activation_function 'relu' is not served, only 'gelu_new'"),
        (
            '"scale_attn_weights": true',
            '"scale_attn_weights": false',
            "scale_attn_weights False is not served",
        ),
        ('inverse_layer_idx": false', 'inverse_layer_idx": true', "scale_attn_by_inverse_layer_idx True is not served"),
    ):
        assert old in config
        (folder / "config.json").write_text(config.replace(old, new))
        with pytest.raises(ModelError, match=expected):
            Probe(folder, "bfloat16")
