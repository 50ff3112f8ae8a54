"""Maps a PyTorch .bin: a zip of uncompressed storages, and a pickle that says how tensors lie in them.

The pickle is not unpickled: a machine of our own follows the few opcodes that torch.save writes for a dictionary of
tensors, and knows what stands for a tensor by its name alone. Nothing is imported, called or built.
"""

import io
import math
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.kernels import dtypes
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_format import WeightFormat

_STORAGES = {dtype.torch_storage: dtype.name for dtype in dtypes.DTYPES if dtype.torch_storage}
_GLOBALS = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in _STORAGES),
}
_MAX_PICKLE_BYTES = 4_000_000
_MAX_STACK = 100_000
_MAX_VALUES = 1_000_000
_MAX_DEPTH = 8
_MAX_ENTRIES = 100_000
_MAX_DIMS = 8
_LOCAL_HEADER_BYTES = 30


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(frozen=True, slots=True)
class _Storage:
    dtype: str
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class _StoredTensor:
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Where MARK left the stack."""


def map_torch_file(path: Path) -> dict[str, MappedTensor]:
    """All tensors of the file by name, as views of it.

    Raises:
        CheckpointError: the file is missing, damaged, or holds anything but tensors by name.
    """
    result = read_torch_file(path)
    if not is_state_dict(result):
        raise CheckpointError(f"{path} must hold tensors by name, and nothing else")
    return dict(result)


def is_state_dict(value: Any) -> bool:
    """Whether it is tensors by name."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(each, MappedTensor) for name, each in value.items()
    )


def read_torch_file(path: Path) -> Any:
    """What the file holds: dictionaries, lists and numbers as they are, and tensors as views of it.

    Raises:
        CheckpointError: the file is missing, damaged, or asks for anything else.
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
        raise CheckpointError(
            f"{path} is no zip file of torch (older and damaged ones are not read): {error}"
        ) from error
    archive_file = _Archive(path, entries, root, np.memmap(path, dtype=np.uint8, mode="r"))
    return _Viewer(archive_file).view(_run(path, program))


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
        if isinstance(value, _StoredTensor):
            return _view(value, name, self._archive)
        if isinstance(value, dict):
            return {key: self.view(each, str(key), depth + 1) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.view(each, name, depth + 1) for each in value]
        return value


def _view(tensor: _StoredTensor, name: str, archive: _Archive) -> MappedTensor:
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


def _run(path: Path, program: bytes) -> Any:
    """What the pickle describes."""
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(program)):
            if opcode.name == "STOP":
                break
            machine.step(opcode.name, argument)
            if len(machine.stack) > _MAX_STACK:
                raise CheckpointError("its pickle stacks up more than tensors need")
        return machine.stack.pop()
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: its data.pkl is damaged") from error


class _Machine:
    """The stack and memo of a pickle; raises CheckpointError for whatever tensors and plain values do not need."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "MARK":
                stack.append(_Mark)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "APPEND":
                value = stack.pop()
                self._extend(stack[-1], [value])
            case "APPENDS":
                items = self._pop_to_mark()
                self._extend(stack[-1], items)
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE" | "SHORT_BINUNICODE":
                stack.append(argument)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode == "NEWTRUE")
            case "BINPUT" | "LONG_BINPUT":
                self._memo[argument] = stack[-1]
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self._memo[argument])
            case "GLOBAL":
                stack.append(_admit(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_admit(f"{module} {name}" if isinstance(module, str) and isinstance(name, str) else ""))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_build(function, arguments))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set(stack[-1], [key, value])
            case "SETITEMS":
                items = self._pop_to_mark()
                self._set(stack[-1], items)
            case "BUILD":  # the _metadata of a state_dict, which says nothing of the tensors
                stack.pop()
            case _:
                raise CheckpointError(f"its pickle uses {opcode}, which tensors do not need; it is not read")

    def _pop_to_mark(self) -> list[Any]:
        last = len(self.stack) - 1 - self.stack[::-1].index(_Mark)
        items = self.stack[last + 1 :]
        del self.stack[last:]
        return items

    def _set(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, dict):
            raise CheckpointError("its pickle is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int) or key in target:
                raise CheckpointError("its pickle must hold tensors by name, each once")
            target[key] = value

    def _extend(self, target: Any, items: list[Any]) -> None:
        if not isinstance(target, list):
            raise CheckpointError("its pickle is damaged")
        target += items


def _admit(name: str) -> _Global:
    if name not in _GLOBALS:
        raise CheckpointError(
            f"its pickle asks for {name[:80]!r}, which no tensor needs; do not open it with torch.load"
        )
    return _Global(name)


def _storage(identity: Any) -> _Storage:
    """("storage", type, key, device, number of elements)"""
    kind, storage_type, key, _, size = identity
    if kind != "storage" or not isinstance(storage_type, _Global) or type(size) is not int or size < 0:
        raise CheckpointError("its pickle is damaged")
    name = storage_type.name.removeprefix("torch ")
    if not isinstance(key, str) or name not in _STORAGES:
        raise CheckpointError("its pickle is damaged")
    return _Storage(_STORAGES[name], key, size)


def _build(function: Any, arguments: Any) -> Any:
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise CheckpointError("its pickle is damaged")
    if function.name == "collections OrderedDict" and not arguments:
        return {}
    if function.name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], _StoredTensor):
        return arguments[0]
    if function.name != "torch._utils _rebuild_tensor_v2":
        raise CheckpointError("its pickle is damaged")
    storage, offset, shape, strides = arguments[:4]
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, _Storage)
        or len(shape) != len(strides)
        or len(shape) > _MAX_DIMS
        or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    ):
        raise CheckpointError("a tensor of its pickle is damaged")
    return _StoredTensor(storage, offset, shape, strides)


FORMAT = WeightFormat(
    name="PyTorch checkpoint",
    suffix=".bin",
    model_file="pytorch_model.bin",
    index_file="pytorch_model.bin.index.json",
    preference=1,
    map=map_torch_file,
)
