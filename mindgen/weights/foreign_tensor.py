"""Tensors of other libraries, and of files, as what a checkpoint holds."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mindgen.errors import ModelError, WeightUpdateError
from mindgen.system.checks import shown
from mindgen.weights.host_array import host_array
from mindgen.weights.mapped_tensor import MappedTensor
from mindgen.weights.weight_files import find_weights
from mindgen.weights.weight_format import format_of, map_file

# A file or a folder, or tensors of numpy, MindSpore or torch, by name.
Weights: TypeAlias = str | Path | Mapping[str, Any] | Iterable[tuple[str, Any]]


def named_tensors(weights: Weights, model: Path) -> Iterator[tuple[str, MappedTensor]]:
    """Name and tensor, one by one; nothing is copied.

    Args:
        model: the folder of the model that they are for.

    Raises:
        WeightUpdateError: what is there are no names and tensors.
        ModelError, CheckpointError: there is no such file, or it is damaged.
    """
    if isinstance(weights, (str, Path)):
        yield from read_tensors(Path(weights), model).items()
        return
    pairs = weights.items() if isinstance(weights, Mapping) else weights
    if not isinstance(pairs, Iterable):
        raise WeightUpdateError(f"expected names and tensors, a file or a folder, not {shown(weights)}")
    for pair in pairs:
        try:
            name, value = pair
        except (TypeError, ValueError):
            raise WeightUpdateError(f"expected a name and a tensor, not {shown(pair)}") from None
        if not isinstance(name, str):
            raise WeightUpdateError(f"the name of a tensor must be a text, not {shown(name)}")
        yield name, as_mapped(name, value)


def read_tensors(path: Path, model: Path) -> dict[str, MappedTensor]:
    """Of a file, of an adapter's folder, or of a checkpoint's.

    Raises:
        ModelError, CheckpointError: there is none, it is damaged, or it is in pieces for ranks.
    """
    if path.is_file():
        if format_of(path).is_whole_model:
            raise ModelError(f"{path} has names of its own: convert it first with `mindgen convert`")
        return map_file(path)
    weights = find_weights(model, path, 1)
    if weights.is_sharded:
        raise ModelError(f"{path} is cut for several ranks: new weights must be whole; `mindgen shard --ranks 1` joins")
    return weights.map(0)


def as_mapped(name: str, value: Any) -> MappedTensor:
    """A tensor of numpy, MindSpore or torch, on its own memory where that is the host's.

    Raises:
        WeightUpdateError: it is none of these, or not of floats.
    """
    if isinstance(value, MappedTensor):
        return value
    try:
        return MappedTensor(*host_array(name, value))
    except ValueError as error:
        raise WeightUpdateError(str(error)) from error
