"""Files hold tensors of every dtype: what their writers wrote is there, whether or not a model can have it."""

import zipfile

import mindspore
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mindgen.errors import CheckpointError
from mindgen.weights.formats.mindspore_ckpt import map_mindspore_file, write_mindspore_file
from mindgen.weights.formats.safetensors import FORMAT, map_safetensors, write_safetensors
from mindgen.weights.formats.torch_bin import map_torch_file

PLAIN = ["float32", "float16", "bfloat16", "float64", "bool", "uint8", "int8", "int16", "int32", "int64"]
OTHERS = ["uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "complex64"]


def values(name: str) -> torch.Tensor:
    torch.manual_seed(0)
    return (4 * torch.randn(3, 5)).abs().to(getattr(torch, name))


def as_bytes(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("name", [*PLAIN, *OTHERS])
def test_safetensors(name, tmp_path):
    save_file({"weight": values(name)}, tmp_path / "theirs.safetensors")
    mapped = map_safetensors(tmp_path / "theirs.safetensors")["weight"]
    assert (mapped.dtype, mapped.shape, mapped.data.tobytes()) == (name, (3, 5), as_bytes(values(name)))
    write_safetensors(tmp_path / "whole.safetensors", {"weight": mapped}, {})
    FORMAT.write(tmp_path / "stream.safetensors", {"weight": (name, (3, 5))}, [("weight", mapped)], {})
    for written in ("whole", "stream"):
        again = map_safetensors(tmp_path / f"{written}.safetensors")["weight"]
        assert again.dtype == name and again.data.tobytes() == mapped.data.tobytes()


@pytest.mark.parametrize("name", PLAIN)
def test_torch_files(name, tmp_path):
    torch.save({"weight": values(name), "mask": torch.ones(2, dtype=torch.bool)}, tmp_path / "weights.bin")
    mapped = map_torch_file(tmp_path / "weights.bin")
    assert mapped["weight"].dtype == name and mapped["weight"].data.tobytes() == as_bytes(values(name))
    assert mapped["mask"].dtype == "bool" and mapped["mask"].data.tolist() == [1, 1]


@pytest.mark.parametrize("name", [*PLAIN, "uint16", "uint32", "uint64"])
def test_mindspore_files(name, tmp_path):
    expected = mindspore.Tensor(values("float32").numpy()).astype(
        getattr(mindspore, name if name != "bool" else "bool_")
    )
    mindspore.save_checkpoint([{"name": "weight", "data": expected}], str(tmp_path / "theirs.ckpt"))
    mapped = map_mindspore_file(tmp_path / "theirs.ckpt")["weight"]
    assert (mapped.dtype, mapped.shape) == (name, (3, 5))
    write_mindspore_file(tmp_path / "ours.ckpt", {"weight": mapped})
    theirs = mindspore.load_checkpoint(str(tmp_path / "ours.ckpt"))["weight"]
    assert theirs.dtype == expected.dtype
    np.testing.assert_array_equal(
        theirs.astype(mindspore.float32).asnumpy(), expected.astype(mindspore.float32).asnumpy()
    )


def test_a_storage_that_is_none_is_refused(tmp_path):
    torch.save({"weight": torch.ones(4)}, tmp_path / "weights.bin")
    with zipfile.ZipFile(tmp_path / "weights.bin") as source, zipfile.ZipFile(tmp_path / "other.bin", "w") as target:
        for entry in source.infolist():
            content = source.read(entry).replace(b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n")
            target.writestr(entry.filename, content)
    with pytest.raises(CheckpointError, match="its pickle is damaged"):
        map_torch_file(tmp_path / "other.bin")
