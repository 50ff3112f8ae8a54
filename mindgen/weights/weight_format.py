"""Kinds of files that hold tensors, as one record each: formats/ has a file for each, found by being there."""

import pkgutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from mindgen.errors import CheckpointError
from mindgen.weights import formats
from mindgen.weights.mapped_tensor import MappedTensor

Kinds: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape of each tensor, by name


@dataclass(frozen=True, slots=True)
class Place:
    """A tensor in a file: the bytes before its data, how many it has, and the bytes behind it."""

    name: str
    before: bytes
    num_bytes: int
    behind: bytes = b""

    @property
    def total_bytes(self) -> int:
        return len(self.before) + self.num_bytes + len(self.behind)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """All of a file but the tensors' data, in the order in which it lies there."""

    header: bytes
    places: tuple[Place, ...]


Layout: TypeAlias = Callable[[Kinds, Mapping[str, Any]], FileLayout]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """One kind of file.

    Attributes:
        suffix: by which its files are known.
        model_file, index_file: what a model's folder calls the only file, and the list of several; None for no list.
        preference: which of several in a folder is taken, the lowest first.
        map: its tensors by name, mapped; raises CheckpointError if the file is damaged.
        has_any_name: whether a model's folder may call its only file as it likes.
        is_packed: whether the file may hold a tensor in fewer bits than memory does.
        layout: of a file with tensors of these kinds, and metadata; None if mindgen writes none of these.
        is_whole_model: whether configuration and tokenizer are in the file as well, and tensors have its own names.
        read_metadata: the texts that a writer has left in it; None if the format has no place for them.
    """

    name: str
    suffix: str
    model_file: str
    index_file: str | None
    preference: int
    map: Callable[[Path], dict[str, MappedTensor]]
    layout: Layout | None = None
    read_metadata: Callable[[Path], dict[str, str]] | None = None
    has_any_name: bool = False
    is_packed: bool = False
    is_whole_model: bool = False

    def write(
        self, path: Path, kinds: Kinds, tensors: Iterable[tuple[str, MappedTensor]], metadata: Mapping[str, Any]
    ) -> None:
        """Writes a file of this kind with the memory of one tensor at a time; they come in the order of their kinds.

        Raises:
            OSError: the disk is full, or the folder cannot be written to.
        """
        assert self.layout is not None, f"{self.name} is not written"
        layout = self.layout(kinds, metadata)
        with path.open("wb") as file:
            file.write(layout.header)
            for place, (name, tensor) in zip(layout.places, tensors, strict=True):
                assert (name, tensor.dtype, tensor.shape) == (place.name, *kinds[name]), f"{name} is out of its place"
                file.write(place.before)
                file.write(np.ascontiguousarray(tensor.data).data)
                file.write(place.behind)


@cache
def weight_formats() -> dict[str, WeightFormat]:
    """All, by suffix, the preferred ones first."""
    modules = [import_module(f"{formats.__name__}.{each.name}") for each in pkgutil.iter_modules(formats.__path__)]
    found = [module.FORMAT for module in modules if hasattr(module, "FORMAT")]
    return {each.suffix: each for each in sorted(found, key=lambda each: each.preference)}


def format_of(path: Path) -> WeightFormat:
    """Raises CheckpointError if the file's name is of no known kind."""
    known = weight_formats()
    if path.suffix not in known:
        raise CheckpointError(f"{path}: expected a file ending in {' or '.join(known)}")
    return known[path.suffix]


def map_file(path: Path) -> dict[str, MappedTensor]:
    """The tensors of a file of any kind, mapped.

    Raises:
        CheckpointError: it is of no known kind, or damaged.
    """
    return format_of(path).map(path)
