"""The same tensors in every kind of file, and folders that have several."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny_models import make_model

from mindgen.errors import CheckpointError, ModelError
from mindgen.weights.folder import map_weights, weight_paths
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import format_of


@pytest.fixture
def folder(tmp_path):
    return make_model("llama-biased-one-kv-head", tmp_path / "model", torch.bfloat16)


def assert_same(found: dict[str, MappedTensor], expected: dict[str, MappedTensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name].data, tensor.data)


def test_torch_files_hold_the_same(folder):
    expected = map_weights(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "kept")
    torch.save(tensors, folder / "pytorch_model.bin")
    assert_same(map_weights(folder), expected)
    (folder / "pytorch_model.bin").unlink()

    names = sorted(tensors)
    parts = {"pytorch_model-00001-of-00002.bin": names[:5], "pytorch_model-00002-of-00002.bin": names[5:]}
    for file_name, own in parts.items():
        torch.save({name: tensors[name] for name in own}, folder / file_name)
    weight_map = {name: file_name for file_name, own in parts.items() for name in own}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(map_weights(folder), expected)
    assert [path.name for path in weight_paths(folder)] == [*parts]


def test_a_state_dict_of_training_may_have_any_name(folder):
    """It may lie beside an optimizer's state, and under the names of data-parallel training."""
    expected = map_weights(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for content in (tensors, {"model": {f"module.{name}": each for name, each in tensors.items()}, "step": 3}):
        torch.save(content, folder / "step_3.pt")
        assert_same(map_weights(folder), expected)
        assert weight_paths(folder) == [folder / "step_3.pt"]
    torch.save(tensors, folder / "step_4.pt")
    with pytest.raises(ModelError, match="several checkpoints, step_3.pt, step_4.pt: call one model.pt"):
        map_weights(folder)


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_what_is_written_is_read_back(suffix, folder, tmp_path):
    expected = map_weights(folder)
    path = tmp_path / f"written{suffix}"
    kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in expected.items()}
    format_of(path).write(path, kinds, iter(expected.items()), {})
    assert_same(format_of(path).map(path), expected)


def test_no_checkpoint_and_unknown_files(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"has no checkpoint: expected model.safetensors, .*model.ckpt, model.gguf or model.pt"
    ):
        map_weights(folder)
    with pytest.raises(CheckpointError, match=r"expected a file ending in \.safetensors or \.bin or \.ckpt"):
        format_of(tmp_path / "model.pkl")
