"""PEFT to MindFormers and back: the same digest, and the same numbers where MindFormers cannot say the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_options import MERGED, SERVED, make_option
from safetensors.torch import load_file
from tiny_adapters import CONFIGS, make_adapter
from tiny_models import make_model

from mindgen.adapters.formats.peft import read_adapter
from mindgen.adapters.tools.compare import compare_adapters
from mindgen.adapters.tools.convert import convert_adapter
from mindgen.errors import AdapterError

UNIFORM = ("everything", "query-value", "rslora-one-layer", "all-linear", "excluded", "layers-pattern", "full-names")
FOLDED = ("pattern", "patterns")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_model("qwen2-tied", tmp_path_factory.mktemp("model"), torch.float32)


def make(name: str, model: Path, folder: Path) -> Path:
    return make_adapter(name, model, folder) if name in CONFIGS else make_option(name, model, folder)


@pytest.mark.parametrize("names", ["slora", "mindpet"])
@pytest.mark.parametrize("name", UNIFORM)
def test_round_trip_keeps_the_digest(name, names, model, tmp_path):
    adapter = read_adapter(make(name, model, tmp_path))
    convert_adapter(adapter, tmp_path / "mindformers", "mindformers", names)
    theirs = read_adapter(tmp_path / "mindformers")
    convert_adapter(theirs, tmp_path / "back", "peft")
    back = read_adapter(tmp_path / "back")
    assert adapter.digest == theirs.digest == back.digest
    source, target = (load_file(folder / "adapter_model.safetensors") for folder in (adapter.folder, back.folder))
    assert source.keys() == target.keys()
    assert all(torch.equal(source[key], target[key]) for key in source)


@pytest.mark.parametrize("name", FOLDED)
def test_patterns_go_into_b(name, model, tmp_path):
    """MindFormers has one alpha and one r: it pads the ranks, and multiplies every B by alpha / r."""
    adapter = read_adapter(make(name, model, tmp_path))
    convert_adapter(adapter, tmp_path / "mindformers", "mindformers")
    theirs = read_adapter(tmp_path / "mindformers")
    convert_adapter(theirs, tmp_path / "back", "peft")
    for other in (theirs, read_adapter(tmp_path / "back")):
        differences = compare_adapters(adapter, other)
        assert all(difference.relative is not None and difference.relative < 1e-6 for difference in differences)


@pytest.mark.parametrize("name", [*CONFIGS, *SERVED])
def test_mindformers_computes_the_same(name, model, tmp_path):
    """By the steps of MindFormers' loading, on what MindSpore's load_checkpoint returns."""
    import json

    import mindspore

    adapter = read_adapter(make(name, model, tmp_path))
    convert_adapter(adapter, tmp_path / "out", "mindformers")
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert type(config["r"]) is int and type(config["lora_alpha"]) is int and type(config["lora_dropout"]) is float
    parameters = mindspore.load_checkpoint(str(tmp_path / "out/adapter_model.ckpt"))
    scaling = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    renamed = {"wq": "q_proj", "wk": "k_proj", "wv": "v_proj", "wo": "o_proj", "w1": "gate_proj", "w2": "down_proj"}
    renamed |= {"w3": "up_proj", "attention": "self_attn", "feed_forward": "mlp"}
    for key, parameter in parameters.items():
        if key.endswith(".lora_a"):
            module = ".".join(renamed.get(part, part) for part in key.removesuffix(".lora_a").split("."))
            update = adapter.updates[module]
            b = parameters[key.replace("lora_a", "lora_b")].asnumpy()
            expected = update.scaling * update.b.data.astype(np.float64) @ update.a.data
            np.testing.assert_allclose(scaling * b.astype(np.float64) @ parameter.asnumpy(), expected, atol=1e-6)
    assert len(parameters) == 2 * len(adapter.updates)


@pytest.mark.parametrize("name", MERGED)
def test_what_mindformers_has_no_place_for(name, model, tmp_path):
    adapter = read_adapter(make(name, model, tmp_path))
    with pytest.raises(AdapterError, match="MindFormers has no place for; merge it instead"):
        convert_adapter(adapter, tmp_path / "out", "mindformers")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MERGED)
def test_peft_to_peft_keeps_everything(name, model, tmp_path):
    adapter = read_adapter(make(name, model, tmp_path))
    convert_adapter(adapter, tmp_path / "out", "peft")
    assert read_adapter(tmp_path / "out").digest == adapter.digest
    source, target = (load_file(folder / "adapter_model.safetensors") for folder in (adapter.folder, tmp_path / "out"))
    assert source.keys() == target.keys()
