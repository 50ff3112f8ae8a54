"""Mapping safetensors files: equal to the safetensors package's reading, and safe with files that lie."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import save_file

from mindgen.errors import CheckpointError, ModelError
from mindgen.kernels import dtypes
from mindgen.weights.folder import map_weights
from mindgen.weights.formats.safetensors import map_safetensors


def write_raw(path, header: object, data: bytes, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)


def test_equals_what_safetensors_wrote(tmp_path):
    torch.manual_seed(0)
    tensors = {str(dtype): torch.randn(3, 5).to(dtype) for dtype in (torch.float32, torch.bfloat16, torch.float16)}
    tensors |= {"ids": torch.arange(7), "scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4)}
    save_file(tensors, tmp_path / "weights.safetensors")
    mapped = map_safetensors(tmp_path / "weights.safetensors")
    assert mapped.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert mapped[name].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(dtypes.to_float32(mapped[name].data, mapped[name].dtype), tensor.float().numpy())


def test_tensors_are_views_of_the_file(tmp_path):
    save_file({"weight": torch.ones(4)}, tmp_path / "weights.safetensors")
    data = map_safetensors(tmp_path / "weights.safetensors")["weight"].data
    assert not data.flags.owndata and not data.flags.writeable


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2, 3]},
        {"shape": [2, -2]},
        {"shape": [2.0, 2]},
        {"shape": [2**40, 2**40]},
        {"shape": "22"},
        {"data_offsets": [0, 17]},
        {"data_offsets": [8, 24]},
        {"data_offsets": [-16, 0]},
        {"data_offsets": [16, 0]},
        {"data_offsets": [0]},
        {"dtype": "F8_E4M3"},
        {"dtype": "F4", "shape": [8, 4]},
        {"dtype": ["F32"]},
    ],
)
def test_lying_headers(tmp_path, change):
    path = tmp_path / "weights.safetensors"
    write_raw(path, {"weight": {**ENTRY, **change}}, bytes(16))
    with pytest.raises(CheckpointError, match="weight"):
        map_safetensors(path)


def entry(begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": [(end - begin) // 4], "data_offsets": [begin, end]}


PAIR = {"a": entry(0, 8), "b": entry(8, 16)}
TEXT = json.dumps(PAIR).encode()


@pytest.mark.parametrize(
    ("header", "num_bytes"),
    [
        (PAIR, 17),
        (PAIR, 15),
        ({}, 4),
        ({"a": entry(0, 8)}, 16),
        ({"a": entry(4, 16)}, 16),
        ({"a": entry(0, 4), "b": entry(8, 16)}, 16),
        ({"a": entry(0, 12), "b": entry(8, 16)}, 16),
        ({"a": entry(0, 16), "b": entry(0, 16)}, 16),
        ({"a": entry(0, 16), "b": entry(4, 4)}, 16),
        (TEXT + b"\0\0\0", 16),
        (TEXT + b"{}", 16),
        ({**PAIR, "__metadata__": {"format": 1}}, 16),
        ({**PAIR, "__metadata__": ["pt"]}, 16),
    ],
)
def test_what_the_format_forbids(tmp_path, header, num_bytes):
    """What the Rust library refuses is refused here as well."""
    path = tmp_path / "weights.safetensors"
    write_raw(path, header, bytes(num_bytes))
    with pytest.raises(SafetensorError):
        deserialize(path.read_bytes())
    with pytest.raises(CheckpointError, match=r"weights\.safetensors"):
        map_safetensors(path)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b" " + TEXT, "its header is not a JSON object that spaces may follow"),
        (TEXT + b"\n", "its header is not a JSON object that spaces may follow"),
        (TEXT + b"\t ", "its header is not a JSON object that spaces may follow"),
        (TEXT[:-1] + b', "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}', "names a tensor twice"),
    ],
)
def test_what_the_format_forbids_and_the_rust_library_takes(tmp_path, header, expected):
    path = tmp_path / "weights.safetensors"
    write_raw(path, header, bytes(16))
    with pytest.raises(CheckpointError, match=expected):
        map_safetensors(path)


@pytest.mark.parametrize(
    "header",
    [
        TEXT + b"     ",
        {"b": entry(8, 16), "a": entry(0, 8)},
        {"none": entry(8, 8), **PAIR, "last": entry(16, 16), "first": entry(0, 0)},
        {**PAIR, "__metadata__": {"format": "pt"}},
    ],
)
def test_what_the_format_allows(tmp_path, header):
    path = tmp_path / "weights.safetensors"
    data = np.arange(4, dtype=np.float32)
    write_raw(path, header, data.tobytes())
    mapped, theirs = map_safetensors(path), dict(deserialize(path.read_bytes()))
    assert mapped.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert mapped[name].data.tobytes() == bytes(tensor["data"])


def test_a_header_that_is_too_large(tmp_path):
    path = tmp_path / "weights.safetensors"
    with path.open("wb") as file:
        file.write((100_000_001).to_bytes(8, "little"))
        file.truncate(100_000_100)
    with pytest.raises(SafetensorError, match="header too large"), safe_open(path, "np"):
        pass
    with pytest.raises(CheckpointError, match="its header claims 100000001"):
        map_safetensors(path)


@pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 8, b"\xff" * 40, (5).to_bytes(8, "little") + b"[1]  "])
def test_no_safetensors_at_all(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="safetensors"):
        map_safetensors(path)


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 200), value=st.integers(0, 255), length=st.integers(0, 400))
def test_damaged_files_never_crash(tmp_path_factory, position, value, length):
    """Any byte changed and any length: the tensors lie within the file, or it is a CheckpointError."""
    path = tmp_path_factory.mktemp("fuzz") / "weights.safetensors"
    save_file({"a": torch.ones(4, 4), "b": torch.ones(3, dtype=torch.bfloat16)}, path)
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content[:length] if length < 300 else content)
    try:
        tensors = map_safetensors(path)
    except CheckpointError:
        return
    for tensor in tensors.values():
        tensor.data.sum()


def test_index_may_not_leave_the_folder(tmp_path):
    save_file({"weight": torch.ones(4)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"weight": "a\\u0000b.safetensors"}}')
    with pytest.raises(CheckpointError, match="which no file can be called"):
        map_weights(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"weight": "../outside.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside"):
        map_weights(folder)


def test_incomplete_folders(tmp_path):
    with pytest.raises(ModelError, match="has no checkpoint: expected model.safetensors"):
        map_weights(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"weight": "model-1.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"model-1.safetensors: No such file"):
        map_weights(tmp_path)
    save_file({"other": torch.ones(4)}, tmp_path / "model-1.safetensors")
    with pytest.raises(CheckpointError, match="promises 'weight'"):
        map_weights(tmp_path)


@given(st.lists(st.floats(width=32), min_size=1))
def test_bfloat16_rounds_as_torch(values):
    array = np.array(values, np.float32)
    ours = dtypes.to_float32(dtypes.from_float32(array, "bfloat16"), "bfloat16")
    np.testing.assert_array_equal(ours, torch.from_numpy(array).to(torch.bfloat16).float().numpy())
