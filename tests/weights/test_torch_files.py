"""What torch.save writes beside tensors is left alone; nothing of it is ever built or called."""

import argparse
import collections
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mindgen.errors import CheckpointError
from mindgen.weights.formats.torch_bin import map_torch_file, read_torch_file

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2, dtype=torch.bfloat16)}
HARMLESS = {
    "size": torch.Size([2, 3]),
    "dtype": torch.bfloat16,
    "device": torch.device("cpu"),
    "set": {1, 2},
    "frozen": frozenset("ab"),
    "loss": np.float64(1.5),
    "array": np.arange(3),
    "namespace": argparse.Namespace(lr=1e-3, layers=[1, 2]),
    "counter": collections.Counter("abc"),
    "default": collections.defaultdict(list, a=[1]),
    "path": Path("x"),
    "function": os.path.join,
    "complex": torch.ones(2, dtype=torch.complex64),
    "bytes": b"abc",
    "epoch": 3,
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", HARMLESS)
def test_harmless_things_beside_the_state_dict(name, protocol, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"model": STATE, name: HARMLESS[name], "behind": [1]}, path, pickle_protocol=protocol)
    assert read_torch_file(path)["behind"] == [1]
    tensors = map_torch_file(path)
    assert tensors.keys() == STATE.keys()
    np.testing.assert_array_equal(tensors["weight"].data, STATE["weight"].numpy())


def test_plain_values_are_as_they_are(tmp_path):
    torch.save({"model": STATE, **HARMLESS}, tmp_path / "x.pt")
    content = read_torch_file(tmp_path / "x.pt")
    assert (content["size"], content["epoch"]) == ([2, 3], 3)


class Malice:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("protocol", [2, 4])
def test_nothing_is_called(protocol, tmp_path):
    path, marker = tmp_path / "x.pt", tmp_path / "marker"
    torch.save({"model": STATE, "other": Malice(marker)}, path, pickle_protocol=protocol)
    assert map_torch_file(path).keys() == STATE.keys()
    for content in ({"model": {**STATE, "other": Malice(marker)}}, {**STATE, "other": Malice(marker)}):
        torch.save(content, path, pickle_protocol=protocol)
        with pytest.raises(CheckpointError, match=r"no state dict: .*\('other' is 'posix system', which is not read"):
            map_torch_file(path)
    torch.save(Malice(marker), path, pickle_protocol=protocol)
    with pytest.raises(CheckpointError, match="it has 'posix system', which is not read"):
        map_torch_file(path)
    assert not marker.exists()


def test_a_bin_may_have_its_state_dict_beside_other_things(tmp_path):
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "pytorch_model.bin")
    assert map_torch_file(tmp_path / "pytorch_model.bin").keys() == STATE.keys()


def test_files_of_an_old_torch(tmp_path):
    torch.save(STATE, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"x.pt is of a torch before 1.6: save it again with a newer torch"):
        map_torch_file(tmp_path / "x.pt")
