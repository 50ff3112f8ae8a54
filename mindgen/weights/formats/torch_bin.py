"""Maps a PyTorch .bin: a zip of uncompressed storages, and a pickle that says how tensors lie in them."""

import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.kernels import dtypes
from mindgen.weights.formats.torch_pickle import Opaque, StoredTensor, follow_pickle
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import WeightFormat

_STATE_DICTS = ("model", "state_dict", "model_state_dict", "module")
# What data-parallel and compiled models put before all names.
_PREFIX = re.compile(r"(module\.|_orig_mod\.)*")
_MAGIC_BEFORE_1_6 = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_MAX_PICKLE_BYTES = 4_000_000
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 8
_MAX_ENTRIES = 100_000
_LOCAL_HEADER_BYTES = 30


def map_torch_file(path: Path) -> dict[str, MappedTensor]:
    """The tensors of the file's state dict by name, as views of it.

    Raises:
        CheckpointError: the file is missing, damaged, or has no state dict.
    """
    return find_state_dict(path, read_torch_file(path))


def find_state_dict(path: Path, content: Any) -> dict[str, MappedTensor]:
    """Under the model's own names; raises CheckpointError where there is none."""
    states = [content, *(content.get(key) for key in _STATE_DICTS)] if isinstance(content, dict) else []
    tensors = next((dict(state) for state in states if state and _is_state_dict(state)), None)
    if tensors is None:
        raise CheckpointError(
            f"{path} has no state dict: expected tensors by name and nothing else, there or under "
            f"{', '.join(_STATE_DICTS)}; it has {_contents(content, states)}"
        )
    return {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}


def _is_state_dict(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(each, MappedTensor) for name, each in value.items()
    )


def _contents(content: Any, states: list[Any]) -> str:
    """What is there instead, for an error."""
    if isinstance(content, Opaque):
        return f"{content.name[:80]!r}, which is not read"
    if not isinstance(content, dict):
        return type(content).__name__
    values = ((name, each) for state in states if isinstance(state, dict) for name, each in state.items())
    unread = next((f"{name!r} is {each.name[:80]!r}" for name, each in values if isinstance(each, Opaque)), None)
    return ", ".join(map(str, list(content)[:8])) + (f" ({unread}, which is not read)" if unread else "")


def read_torch_file(path: Path) -> Any:
    """What the file holds: dictionaries, lists and numbers as they are, tensors as views, and of others the names.

    Raises:
        CheckpointError: the file is missing, damaged, or older than torch 1.6.
    """
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) > _MAX_ENTRIES or len(entries) != len(archive.infolist()):
                raise CheckpointError(f"{path} holds too many files, or two of one name")
            pickles = [name for name in entries if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1 or entries[pickles[0]].file_size > _MAX_PICKLE_BYTES:
                raise CheckpointError(f"{path} is no torch file: expected one data.pkl, of no more than 4 MB")
            for entry in entries.values():
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise CheckpointError(f"{path}: {entry.filename!r} is compressed, which torch never does")
            root = pickles[0].removesuffix("data.pkl")
            program = archive.read(pickles[0])
            byteorder = entries.get(f"{root}byteorder")
            if byteorder is not None and (byteorder.file_size > 6 or archive.read(byteorder) != b"little"):
                raise CheckpointError(f"{path} comes from a big-endian machine")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError) as error:
        if _begins_with(path, _MAGIC_BEFORE_1_6):
            raise CheckpointError(f"{path} is of a torch before 1.6: save it again with a newer torch") from error
        raise CheckpointError(
            f"{path} is no zip file of torch, or damaged: {error}; copy or download it again"
        ) from error
    archive_file = _Archive(path, entries, root, np.memmap(path, dtype=np.uint8, mode="r"))
    return _Viewer(archive_file).view(follow_pickle(path, program))


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


@dataclass(frozen=True, slots=True)
class _Archive:
    """The zip file, and its content mapped."""

    path: Path
    entries: dict[str, zipfile.ZipInfo]
    root: str
    content: np.ndarray


class _Viewer:
    """Puts the file's data in the place of what describes tensors."""

    def __init__(self, archive: _Archive) -> None:
        self._archive = archive
        self._num_values = 0

    def view(self, value: Any, name: str = "it", depth: int = 0) -> Any:
        """
        Raises:
            CheckpointError: a tensor does not lie in the file; or there is more than tensors and settings need.
        """
        self._num_values += 1
        if self._num_values > _MAX_VALUES or depth > _MAX_DEPTH:
            raise CheckpointError(f"{self._archive.path}: its pickle nests or repeats more than tensors need")
        if isinstance(value, StoredTensor):
            return _view(value, name, self._archive)
        if isinstance(value, dict):
            return {key: self.view(each, str(key), depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.view(each, name, depth + 1) for each in value]
        return value


def _view(tensor: StoredTensor, name: str, archive: _Archive) -> MappedTensor:
    path, content = archive.path, archive.content
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    itemsize = np.dtype(dtypes.FILE_STORAGE[storage.dtype]).itemsize
    entry = archive.entries.get(f"{archive.root}data/{storage.key}")
    if entry is None or entry.file_size != storage.size * itemsize:
        raise CheckpointError(f"{path}: the data of {name!r} is missing or not of {storage.size} {storage.dtype}")
    numel = math.prod(shape)
    last = tensor.offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if numel > storage.size or (numel and last >= storage.size):
        raise CheckpointError(f"{path}: {name!r} of shape {shape} does not lie within its {storage.size} values")
    header = entry.header_offset
    lengths = content[header + 26 : header + _LOCAL_HEADER_BYTES].view("<u2")
    start = header + _LOCAL_HEADER_BYTES + (int(lengths.sum()) if lengths.size == 2 else content.size)
    if bytes(content[header : header + 4]) != b"PK\x03\x04" or start + entry.file_size > content.size:
        raise CheckpointError(f"{path}: the data of {name!r} does not lie within the file")
    values: np.ndarray = content[start : start + entry.file_size].view(dtypes.FILE_STORAGE[storage.dtype])
    byte_strides = [stride * itemsize for stride in strides]
    data = np.lib.stride_tricks.as_strided(values[tensor.offset :], shape, byte_strides, writeable=False)
    return MappedTensor(storage.dtype, data)


FORMAT = WeightFormat(
    name="PyTorch checkpoint",
    suffix=".bin",
    model_file="pytorch_model.bin",
    index_file="pytorch_model.bin.index.json",
    preference=1,
    map=map_torch_file,
)
