"""Kinds of files that hold tensors, as one record each: formats/ has a file for each, found by being there."""

import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

from mindgen.errors import CheckpointError
from mindgen.weights import formats
from mindgen.weights.mapped_tensor import MappedTensor

Kinds: TypeAlias = dict[str, tuple[str, tuple[int, ...]]]  # dtype and shape of each tensor, by name
Writer: TypeAlias = Callable[[Path, Kinds, Iterable[tuple[str, MappedTensor]], dict[str, str]], None]


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
        write: a file, given kinds, the tensors in the same order, and metadata; None if mindgen writes none of these.
        read_metadata: the texts that a writer has left in it; None if the format has no place for them.
    """

    name: str
    suffix: str
    model_file: str
    index_file: str | None
    preference: int
    map: Callable[[Path], dict[str, MappedTensor]]
    write: Writer | None = None
    read_metadata: Callable[[Path], dict[str, str]] | None = None
    has_any_name: bool = False
    is_packed: bool = False


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
