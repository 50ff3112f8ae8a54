"""Which slice of an adapter each rank of a tensor-parallel group holds, from the layout of the linear it updates.

A column-parallel linear splits its outputs: A is whole on every rank, B is cut by rows. A row-parallel one splits its
inputs: A is cut by columns, B is whole, and the ranks' products add up. A fused linear is cut part by part.

Where units (single features, or whole heads) do not divide among the ranks, every rank has room for the same number,
ceil(units / ranks): the first ranks are full, the last ones hold what is left, and zeros behind it, so that one
graph with one set of shapes serves all ranks.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from mindgen.checkpoint.peft import LoraUpdate
from mindgen.checkpoint.safetensors_map import MappedTensor
from mindgen.errors import AdapterError

Kind = Literal["column", "row", "replicated"]


@dataclass(frozen=True, slots=True)
class ParallelLayout:
    """How a linear (or one part of a fused one) lies on the ranks.

    Attributes:
        kind: column-parallel, row-parallel, or the same on every rank.
        unit: features that stay together: a head's size for attention, else 1.
    """

    kind: Kind
    unit: int = 1


@dataclass(frozen=True, slots=True)
class Slice:
    """The features start..stop, padded with zeros to `size`."""

    start: int
    stop: int
    size: int


def rank_slice(num_features: int, num_ranks: int, rank: int, unit: int = 1) -> Slice:
    """The rank's features of a split axis.

    Raises:
        AdapterError: the features are no whole number of units.
    """
    assert 0 <= rank < num_ranks, f"rank {rank} of {num_ranks}"
    if num_features % unit:
        raise AdapterError(f"{num_features} features do not divide into units of {unit}")
    size = -(-num_features // unit // num_ranks) * unit
    return Slice(min(rank * size, num_features), min((rank + 1) * size, num_features), size)


def slice_update(update: LoraUpdate, layout: ParallelLayout, num_ranks: int, rank: int) -> LoraUpdate:
    """The rank's part of an update, in the storage of its tensors.

    Raises:
        AdapterError: the adapter is not plain LoRA, which is all that a batch serves.
    """
    if update.magnitude is not None or update.bias is not None or update.is_embedding:
        raise AdapterError("only plain LoRA of linears is sliced; merge other adapters first")
    if layout.kind == "column":
        part = rank_slice(update.b.shape[0], num_ranks, rank, layout.unit)
        return LoraUpdate(update.a, _cut(update.b, part, axis=0), update.scaling)
    if layout.kind == "row":
        part = rank_slice(update.a.shape[1], num_ranks, rank, layout.unit)
        return LoraUpdate(_cut(update.a, part, axis=1), update.b, update.scaling)
    return update


def join_updates(parts: list[LoraUpdate], layout: ParallelLayout, num_features: int) -> LoraUpdate:
    """The whole update from all ranks' parts; num_features is the split axis's size without padding."""
    first = parts[0]
    if layout.kind == "column":
        whole = np.concatenate([part.b.data for part in parts], axis=0)[:num_features]
        return LoraUpdate(first.a, MappedTensor(first.b.dtype, whole), first.scaling)
    if layout.kind == "row":
        whole = np.concatenate([part.a.data for part in parts], axis=1)[:, :num_features]
        return LoraUpdate(MappedTensor(first.a.dtype, whole), first.b, first.scaling)
    return first


def _cut(tensor: MappedTensor, part: Slice, axis: int) -> MappedTensor:
    index = [slice(None)] * tensor.data.ndim
    index[axis] = slice(part.start, part.stop)
    data = tensor.data[tuple(index)]
    padding = [(0, 0)] * data.ndim
    padding[axis] = (0, part.size - data.shape[axis])
    return MappedTensor(tensor.dtype, np.pad(data, padding) if padding[axis][1] else data)
