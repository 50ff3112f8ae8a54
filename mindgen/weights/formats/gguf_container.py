"""The container of GGUF: key-value metadata and tensors, as ggml's docs/gguf.md describes versions 2 and 3.

The gguf package reads it too, but takes seconds for a large vocabulary, and lies in a file send it into endless loops.
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError

_LENGTH = struct.Struct("<Q")
MAGIC = b"GGUF"
_VERSIONS = (2, 3)
SCALARS: dict[int, np.dtype] = {
    0: np.dtype("<u1"), 1: np.dtype("<i1"), 2: np.dtype("<u2"), 3: np.dtype("<i2"), 4: np.dtype("<u4"),
    5: np.dtype("<i4"), 6: np.dtype("<f4"), 7: np.dtype("<u1"), 10: np.dtype("<u8"), 11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}  # fmt: skip
BOOL, TEXT, ARRAY = 7, 8, 9
_MAX_ENTRIES = 1_000_000
_MAX_TEXTS = 2_000_000
_MAX_KEY_BYTES = 65_535
_MAX_AXES = 4
_MAX_ALIGNMENT = 1 << 20
_KNOWN_FILES = 4
_DAMAGED = "the file is truncated or damaged; copy or download it again"


@dataclass(frozen=True, slots=True)
class TensorType:
    """How a tensor's elements lie: so many of a row make a block of so many bytes."""

    name: str
    block: int
    block_bytes: int


TENSOR_TYPES = {
    0: TensorType("F32", 1, 4),
    1: TensorType("F16", 1, 2),
    2: TensorType("Q4_0", 32, 18),
    3: TensorType("Q4_1", 32, 20),
    6: TensorType("Q5_0", 32, 22),
    7: TensorType("Q5_1", 32, 24),
    8: TensorType("Q8_0", 32, 34),
    12: TensorType("Q4_K", 256, 144),
    13: TensorType("Q5_K", 256, 176),
    14: TensorType("Q6_K", 256, 210),
    24: TensorType("I8", 1, 1),
    25: TensorType("I16", 1, 2),
    26: TensorType("I32", 1, 4),
    27: TensorType("I64", 1, 8),
    28: TensorType("F64", 1, 8),
    30: TensorType("BF16", 1, 2),
}
_NOT_SERVED = {
    9: "Q8_1", 10: "Q2_K", 11: "Q3_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor's bytes, as views of the mapped file: (rows, bytes of a row).

    Attributes:
        type_id: of TENSOR_TYPES.
        shape: in numpy's order, the last axis is the row.
    """

    type_id: int
    shape: tuple[int, ...]
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class GgufFile:
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf(path: Path) -> GgufFile:
    """What the file holds; its tensors are mapped.

    Raises:
        CheckpointError: it is missing, damaged, or has a type of tensor that is not served.
    """
    try:
        status = path.stat()
        return _read(path, status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, struct.error) as error:
        raise CheckpointError(f"{path} is no readable GGUF file ({error}): {_DAMAGED}") from error


@lru_cache(_KNOWN_FILES)
def _read(path: Path, size: int, _modified: int) -> GgufFile:
    """Raises ValueError where the file lies."""
    if size < 24:
        raise ValueError(f"it has {size} bytes")
    with path.open("rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    reader = _Reader(content, size)
    if reader.take(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = reader.number("<I")
    if version not in _VERSIONS:
        raise ValueError(f"its version is {version}, read are 2 and 3, in little endian")
    num_tensors, num_entries = reader.count("tensors", _MAX_ENTRIES), reader.count("entries", _MAX_ENTRIES)
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
        key = reader.text(_MAX_KEY_BYTES)
        if key in metadata:
            raise ValueError(f"{key!r} is there twice")
        metadata[key] = reader.value(reader.number("<I"))
    infos = [_TensorInfo.read(reader) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}, not a power of two")
    start = -(-reader.position // alignment) * alignment
    data = np.frombuffer(content, np.uint8)
    tensors: dict[str, GgufTensor] = {}
    for info in infos:
        if info.name in tensors:
            raise ValueError(f"the tensor {info.name!r} is there twice")
        if info.offset % alignment:
            raise ValueError(f"the tensor {info.name!r} begins at {info.offset}, no multiple of {alignment}")
        tensors[info.name] = info.map(data[start:])
    return GgufFile(metadata, tensors)


class _Reader:
    """Reads forward, and never beyond the end."""

    def __init__(self, content: mmap.mmap, size: int) -> None:
        self._content, self._size = content, size
        self.position = 0
        self._num_texts = 0

    def take(self, count: int) -> bytes:
        if count > self._size - self.position:
            raise ValueError(f"{count} bytes are promised at {self.position}, and it ends at {self._size}")
        self.position += count
        return self._content[self.position - count : self.position]

    def number(self, code: str) -> int:
        return int(struct.unpack(code, self.take(struct.calcsize(code)))[0])

    def count(self, what: str, most: int) -> int:
        found = self.number("<Q")
        if found > most:
            raise ValueError(f"it promises {found} {what}")
        return found

    def text(self, most: int) -> str:
        return self.take(self.count("bytes of a text", most)).decode()

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text(self._size)
        if kind == ARRAY:
            return self._array()
        if kind not in SCALARS:
            raise ValueError(f"a value has type {kind}, which there is not")
        found = np.frombuffer(self.take(SCALARS[kind].itemsize), SCALARS[kind])[0].item()
        return bool(found) if kind == BOOL else found

    def _array(self) -> Any:
        kind = self.number("<I")
        if kind in SCALARS:
            itemsize = SCALARS[kind].itemsize
            count = self.count("elements of an array", self._size // itemsize)
            return np.frombuffer(self.take(count * itemsize), SCALARS[kind])
        if kind != TEXT:
            raise ValueError(f"an array's elements have type {kind}, which is not served")
        count = self.count("texts", _MAX_TEXTS - self._num_texts)
        self._num_texts += count
        return list(self._texts(count))

    def _texts(self, count: int) -> Iterator[str]:
        """As `text` gives one after the other, but quick: vocabularies have a hundred thousand."""
        content, size, place = self._content, self._size, self.position
        for _ in range(count):
            start = place + _LENGTH.size
            length = _LENGTH.unpack_from(content, place)[0] if start <= size else size
            place = start + length
            if place > size:
                raise ValueError(f"{length} bytes are promised at {start}, and it ends at {size}")
            yield content[start:place].decode()
        self.position = place


@dataclass(frozen=True, slots=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @classmethod
    def read(cls, reader: _Reader) -> "_TensorInfo":
        name = reader.text(_MAX_KEY_BYTES)
        num_axes = reader.number("<I")
        if not 0 < num_axes <= _MAX_AXES:
            raise ValueError(f"the tensor {name!r} has {num_axes} axes")
        sizes = [reader.number("<Q") for _ in range(num_axes)]
        return cls(name, tuple(reversed(sizes)), reader.number("<I"), reader.number("<Q"))

    def map(self, data: np.ndarray) -> GgufTensor:
        kind = TENSOR_TYPES.get(self.type_id)
        if kind is None:
            called = _NOT_SERVED.get(self.type_id, f"number {self.type_id}")
            served = ", ".join(each.name for each in TENSOR_TYPES.values())
            raise CheckpointError(f"the tensor {self.name!r} has type {called}; served are {served}")
        if self.shape[-1] % kind.block:
            raise ValueError(f"the rows of {self.name!r} have {self.shape[-1]} elements, no blocks of {kind.block}")
        num_rows, row_bytes = math.prod(self.shape[:-1]), self.shape[-1] // kind.block * kind.block_bytes
        if num_rows * row_bytes > max(0, data.size - self.offset):
            raise ValueError(f"the tensor {self.name!r} {self.shape} goes beyond the end")
        content = data[self.offset : self.offset + num_rows * row_bytes]
        return GgufTensor(self.type_id, self.shape, content.reshape(num_rows, row_bytes))
