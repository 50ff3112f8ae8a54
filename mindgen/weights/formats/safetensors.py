"""safetensors: files are mapped, so that tensors are read-only views, checked before any is touched; and written, one
tensor at a time where all are too many for memory.

Format: 8 bytes header length (little endian), a JSON header {name: {dtype, shape, data_offsets}} that spaces may
follow, then the data: each byte belongs to exactly one tensor.
The safetensors package cannot be used for reading: its numpy face copies, and knows no bfloat16.
"""

import json
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, serialize_file

from mindgen.errors import CheckpointError
from mindgen.kernels import dtypes
from mindgen.system.json_file import with_unique_keys
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import FileLayout, Kinds, Place, WeightFormat

# All but those of which several values share a byte.
_DTYPES = {dtype.safetensors: dtype.name for dtype in dtypes.DTYPES if dtype.safetensors}
DTYPE_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_MAX_HEADER_BYTES = 100_000_000
_DAMAGED = "the file is truncated or damaged; copy or download it again"
_KNOWN_HEADERS = 8  # adapters of a model that were made alike have the same


class _Entry(NamedTuple):
    """A tensor as the header tells of it; `begin` and `end` count from where the data begins."""

    name: str
    dtype: str
    storage: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def map_safetensors(path: Path) -> dict[str, MappedTensor]:
    """All tensors of the file by name.

    Raises:
        CheckpointError: the file is missing, truncated, or its header does not fit its data.
    """
    text, size = _read_header(path)
    start = 8 + len(text)
    _parse_header(path, text)
    try:
        entries = _check_entries(text, size - start)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    buffer: np.ndarray = np.zeros(0, np.uint8)  # numpy maps no empty range
    if size > start:
        buffer = np.memmap(path, dtype=np.uint8, mode="r", offset=start, shape=(size - start,)).view(np.ndarray)
    return {
        entry.name: MappedTensor(entry.dtype, np.ndarray(entry.shape, entry.storage, buffer, entry.begin))
        for entry in entries
    }


def read_metadata(path: Path) -> dict[str, str]:
    """The texts in the file's header that its writer put there.

    Raises:
        CheckpointError: the file is missing, or its header is damaged.
    """
    return _parse_header(path, _read_header(path)[0]).get("__metadata__") or {}  # type: ignore[no-any-return]


def _read_header(path: Path) -> tuple[bytes, int]:
    """The header's text, and the file's size."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if size < 8 or header_bytes > min(size - 8, _MAX_HEADER_BYTES):
                raise CheckpointError(
                    f"{path} is truncated or no safetensors file: it has {size} bytes, "
                    f"its header claims {header_bytes}; copy or download it again"
                )
            return file.read(header_bytes), size
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error


def _parse_header(path: Path, text: bytes) -> dict[str, Any]:
    if not (text.startswith(b"{") and text.rstrip(b" ").endswith(b"}")):
        raise CheckpointError(f"{path} is no safetensors file: its header is not a JSON object that spaces may follow")
    try:
        header = _parse_json(text)
    except (ValueError, RecursionError) as error:  # also bad UTF-8, and integers of thousands of digits
        raise CheckpointError(
            f"{path} is no safetensors file: its header is not JSON, or names a tensor twice"
        ) from error
    metadata = header.get("__metadata__") or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{path}: the metadata in its header are not texts")
    return header  # type: ignore[no-any-return]


@lru_cache(_KNOWN_HEADERS)
def _parse_json(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=with_unique_keys)


@lru_cache(_KNOWN_HEADERS)
def _check_entries(text: bytes, data_bytes: int) -> list[_Entry]:
    """What a header that is a JSON object says, checked; raises ValueError if it is wrong."""
    items = _parse_json(text).items()
    entries = [_check_entry(name, entry, data_bytes) for name, entry in items if name != "__metadata__"]
    end = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != end:
            raise ValueError(f"the data of {entry.name!r} begins at {entry.begin}, not at {end}: {_DAMAGED}")
        end = entry.end
    if end != data_bytes:
        raise ValueError(f"{data_bytes - end} bytes behind the last tensor belong to none: {_DAMAGED}")
    return entries


def _check_entry(name: str, entry: Any, data_bytes: int) -> _Entry:
    try:
        code, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise ValueError(f"the header's entry for {name!r} is malformed") from error
    if not isinstance(code, str) or code not in _DTYPES:
        raise ValueError(f"{name!r} has dtype {code!r}; read are {', '.join(_DTYPES)}")
    if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
        raise ValueError(f"the shape and offsets of {name!r} must be natural numbers: {entry!r}")
    dtype = _DTYPES[code]
    storage: np.dtype = np.dtype(dtypes.FILE_STORAGE[dtype])
    expected = math.prod(shape) * storage.itemsize
    if end - begin != expected or end > data_bytes:
        raise ValueError(
            f"{name!r} of shape {shape} needs {expected} bytes, but its data lies at {begin}..{end} "
            f"of {data_bytes}: {_DAMAGED}"
        )
    return _Entry(name, dtype, storage, shape, begin, end)


def write_safetensors(path: Path, tensors: dict[str, MappedTensor], metadata: dict[str, str]) -> None:
    """Writes the file; takes the memory of all its tensors.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    contents = {
        name: {"dtype": tensor.dtype, "shape": tensor.shape, "data": np.ascontiguousarray(tensor.data).tobytes()}
        for name, tensor in tensors.items()
    }
    try:
        serialize_file(contents, str(path), metadata)
    except SafetensorError as error:
        raise OSError(f"cannot write {path}: {error}") from error


def _layout(kinds: Kinds, metadata: Mapping[str, Any]) -> FileLayout:
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    places = []
    for name, (dtype, shape) in kinds.items():
        size = math.prod(shape) * np.dtype(dtypes.FILE_STORAGE[dtype]).itemsize
        begin, end = end, end + size
        header[name] = {"dtype": DTYPE_CODES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        places.append(Place(name, b"", size))
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    return FileLayout(len(encoded).to_bytes(8, "little") + encoded, tuple(places))


FORMAT = WeightFormat(
    name="safetensors",
    suffix=".safetensors",
    model_file="model.safetensors",
    index_file="model.safetensors.index.json",
    preference=0,
    map=map_safetensors,
    layout=_layout,
    read_metadata=read_metadata,
)
