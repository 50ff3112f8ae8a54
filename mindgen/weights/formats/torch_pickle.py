"""What the pickle in a torch file describes.

It is not unpickled: a machine of our own follows the few opcodes that torch.save writes for dictionaries of tensors and
settings, and knows what stands for a tensor by its name alone. Nothing is imported, called or built; in the place of
whatever else the pickle asks for stands its name.
"""

import io
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mindgen.errors import CheckpointError
from mindgen.kernels import dtypes

_STORAGES = {dtype.torch_storage: dtype.name for dtype in dtypes.DTYPES if dtype.torch_storage}
_MAX_STACK = 100_000
_MAX_DIMS = 8


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something that is not read, of whose name nothing but the text is known."""

    name: str


class _Global(Opaque):
    """What a name stands for."""


@dataclass(frozen=True, slots=True)
class Storage:
    dtype: str
    key: str
    size: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Mark:
    """Where MARK left the stack."""


def follow_pickle(path: Path, program: bytes) -> Any:
    """What it describes: StoredTensor and Opaque, in dictionaries, lists, tuples and with plain values.

    Raises:
        CheckpointError: it is damaged, or uses what torch.save does not.
    """
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
            case "EMPTY_SET":
                stack.append(Opaque("set"))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "NONE":
                stack.append(None)
            case "APPEND":
                value = stack.pop()
                self._extend(stack[-1], [value])
            case "APPENDS" | "ADDITEMS":
                items = self._pop_to_mark()
                self._extend(stack[-1], items)
            case "FROZENSET":
                self._pop_to_mark()
                stack.append(Opaque("frozenset"))
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINBYTES" | "SHORT_BINBYTES":
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
                stack.append(_Global(argument))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_Global(f"{module} {name}"))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "NEWOBJ":
                arguments, made = stack.pop(), stack.pop()
                stack.append(Opaque(made.name))
            case "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                stack.append(_build(function, arguments))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                self._set(stack[-1], [key, value])
            case "SETITEMS":
                items = self._pop_to_mark()
                self._set(stack[-1], items)
            case "BUILD":  # what is not read, or the _metadata of a state_dict, which says nothing of the tensors
                stack.pop()
            case _:
                raise CheckpointError(f"its pickle uses {opcode}, which tensors do not need; it is not read")

    def _pop_to_mark(self) -> list[Any]:
        last = len(self.stack) - 1 - self.stack[::-1].index(_Mark)
        items = self.stack[last + 1 :]
        del self.stack[last:]
        return items

    def _set(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Opaque):
            return
        if not isinstance(target, dict):
            raise CheckpointError("its pickle is damaged")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int) or key in target:
                raise CheckpointError("its pickle must hold tensors by name, each once")
            target[key] = value

    def _extend(self, target: Any, items: list[Any]) -> None:
        if isinstance(target, Opaque):
            return
        if not isinstance(target, list):
            raise CheckpointError("its pickle is damaged")
        target += items


def _storage(identity: Any) -> Storage | Opaque:
    """Of ("storage", type, key, device, number of elements)."""
    kind, storage_type, key, _, size = identity
    if kind != "storage" or not isinstance(storage_type, _Global) or type(size) is not int or size < 0:
        raise CheckpointError("its pickle is damaged")
    name = storage_type.name.removeprefix("torch ")
    if not isinstance(key, str) or not name.endswith("Storage"):
        raise CheckpointError("its pickle is damaged")
    if name not in _STORAGES:
        return Opaque(storage_type.name)
    return Storage(_STORAGES[name], key, size)


def _build(function: Any, arguments: Any) -> Any:
    if not isinstance(function, Opaque) or not isinstance(arguments, tuple):
        raise CheckpointError("its pickle is damaged")
    if function.name == "collections OrderedDict" and not arguments:
        return {}
    if function.name == "torch Size" and isinstance(arguments[0], tuple):
        return arguments[0]
    if function.name == "torch._utils _rebuild_parameter" and isinstance(arguments[0], StoredTensor | Opaque):
        return arguments[0]
    if function.name != "torch._utils _rebuild_tensor_v2":
        return Opaque(function.name)
    storage, offset, shape, strides = arguments[:4]
    if isinstance(storage, Opaque):
        return storage
    numbers = (offset, *shape, *strides)
    if (
        not isinstance(storage, Storage)
        or len(shape) != len(strides)
        or len(shape) > _MAX_DIMS
        or not all(type(number) is int and 0 <= number < 2**63 for number in numbers)
    ):
        raise CheckpointError("a tensor of its pickle is damaged")
    return StoredTensor(storage, offset, shape, strides)
