"""How tensors lie on the ranks of a tensor-parallel group, in MindSpore's notation.

A device matrix arranges the ranks, row by row; a tensor map names for each axis of a tensor the axis of the device
matrix that it is split along: 0 is the last one, -1 is none. From that declaration, which each layer makes once, come
the slices of weights and adapters and the strategies for MindSpore's compiler.

Where units (single features, or whole heads) do not divide among the ranks, every rank has room for the same number,
ceil(units / ranks): the first ranks are full, the last ones hold what is left, and zeros behind it, so that one
graph with one set of shapes serves all ranks.
"""

import math
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from mindgen.errors import ModelError

# A device axis, or several from the outermost on, of which all but the last divide the tensor's axis evenly.
AxisMap: TypeAlias = int | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice:
    """The entries start..stop of an axis, padded with zeros to `size`."""

    start: int
    stop: int
    size: int


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a tensor, and how it is split.

    Attributes:
        devices: the device matrix; empty for an axis that is not split.
        split_by: axes of the device matrix, 0 the last one, from the outermost split on; empty is not split.
        unit: entries that stay together: a head's size, or that of all heads that share keys and values.

    Raises:
        ModelError: the entries are no whole number of units.
    """

    size: int
    devices: tuple[int, ...] = ()
    split_by: tuple[int, ...] = ()
    unit: int = 1

    def __post_init__(self) -> None:
        if self.size % self.unit:
            raise ModelError(f"{self.size} features do not divide into units of {self.unit}")

    @property
    def num_slices(self) -> int:
        return math.prod(self._device_count(axis) for axis in self.split_by)

    @property
    def slice_size(self) -> int:
        return self.slice_of(0).size

    @property
    def is_padded(self) -> bool:
        """Whether some rank has fewer entries than others, and zeros behind them."""
        return self.slice_size * self.num_slices != self.size

    def slice_of(self, rank: int) -> Slice:
        """The rank's entries."""
        start, size, extent = 0, self.size, self.size
        for place, axis in enumerate(self.split_by):
            count, index = self._device_count(axis), self._device_index(axis, rank)
            if place < len(self.split_by) - 1:
                assert extent % (count * self.unit) == 0, f"{extent} features do not divide among {count}"
                extent = size = extent // count
                start += index * extent
            else:
                size = -(-extent // self.unit // count) * self.unit
                begin, end = min(index * size, extent), min((index + 1) * size, extent)
                start, extent = start + begin, end - begin
        return Slice(start, start + extent, size)

    def _device_count(self, axis: int) -> int:
        return self.devices[-1 - axis]

    def _device_index(self, axis: int, rank: int) -> int:
        behind = self.devices[len(self.devices) - axis :]
        return rank // math.prod(behind) % self._device_count(axis)


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """How a tensor lies on the ranks.

    Attributes:
        axes: of the tensor; those that are split have the same device matrix.
    """

    num_ranks: int
    axes: tuple[Axis, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @property
    def slice_shape(self) -> tuple[int, ...]:
        return tuple(axis.slice_size for axis in self.axes)

    @property
    def device_matrix(self) -> tuple[int, ...]:
        return next((axis.devices for axis in self.axes if axis.split_by), (self.num_ranks,))

    @property
    def tensor_map(self) -> tuple[AxisMap, ...]:
        return tuple(_axis_map(axis.split_by) for axis in self.axes)

    @property
    def strategy(self) -> tuple[int, ...]:
        """Into how many slices each axis is cut, as `.shard()` wants it."""
        return tuple(axis.num_slices for axis in self.axes)

    def slices_of(self, rank: int) -> tuple[Slice, ...]:
        assert 0 <= rank < self.num_ranks, f"rank {rank} of {self.num_ranks}"
        return tuple(axis.slice_of(rank) for axis in self.axes)

    def cut(self, whole: np.ndarray, rank: int) -> np.ndarray:
        """The rank's part: a view where there is nothing to pad."""
        parts = self.slices_of(rank)
        view = whole[tuple(slice(part.start, part.stop) for part in parts)]
        padding = [(0, part.size - size) for part, size in zip(parts, view.shape, strict=True)]
        return np.pad(view, padding) if any(after for _, after in padding) else view

    def join(self, parts: list[np.ndarray]) -> np.ndarray:
        """The whole tensor from all ranks' parts."""
        whole: np.ndarray = np.zeros(self.shape, parts[0].dtype)
        for rank, part in enumerate(parts):
            places = self.slices_of(rank)
            filled = tuple(slice(0, place.stop - place.start) for place in places)
            whole[tuple(slice(place.start, place.stop) for place in places)] = part[filled]
        return whole


def map_layout(shape: tuple[int, ...], device_matrix: tuple[int, ...], tensor_map: tuple[AxisMap, ...]) -> TensorLayout:
    """The layout of a whole tensor, from MindSpore's notation."""
    axes = []
    for size, axis_map in zip(shape, tensor_map, strict=True):
        split_by = axis_map if isinstance(axis_map, tuple) else () if axis_map == -1 else (axis_map,)
        axes.append(Axis(size, device_matrix, split_by) if split_by else Axis(size))
    return TensorLayout(math.prod(device_matrix), tuple(axes))


@dataclass(frozen=True, slots=True)
class Shard:
    """What this process has of a network that lies on num_ranks ranks.

    Attributes:
        sliced_by_compiler: MindSpore's compiler slices the network, as on Ascend, which is described whole till then.
    """

    num_ranks: int = 1
    rank: int = 0
    sliced_by_compiler: bool = False

    @property
    def sliced(self) -> "Shard":
        """The same once the compiler has sliced the network."""
        return replace(self, sliced_by_compiler=False)

    def split(self, size: int, unit: int = 1) -> Axis:
        """An axis that is split among all ranks."""
        return Axis(size, (self.num_ranks,), (0,), unit) if self.num_ranks > 1 else Axis(size, unit=unit)

    def split_heads(self, num_heads: int, num_kv_heads: int, head_size: int) -> tuple[Axis, Axis]:
        """The axes of the queries and of the keys and values; query heads stay with those that they attend to.

        Where there are more ranks than KV heads, several ranks have the same KV head and share its query heads.
        """
        queries, keys, group = num_heads * head_size, num_kv_heads * head_size, num_heads // num_kv_heads
        if self.num_ranks <= num_kv_heads or self.num_ranks % num_kv_heads:
            return self.split(queries, group * head_size), self.split(keys, head_size)
        devices = (num_kv_heads, self.num_ranks // num_kv_heads)
        return Axis(queries, devices, (1, 0), head_size), Axis(keys, devices, (1,), head_size)

    def size(self, axis: Axis) -> int:
        """The axis's size in this process; for the compiler the size of all slices, padding included."""
        return axis.slice_size * self.cuts(axis) if self.sliced_by_compiler else axis.slice_size

    def cuts(self, axis: Axis) -> int:
        """Into how many slices MindSpore's compiler cuts the axis, as `.shard()` wants it."""
        return self.num_ranks if axis.split_by else 1

    def shape(self, layout: TensorLayout) -> tuple[int, ...]:
        """The tensor's shape in this process."""
        return tuple(self.size(axis) for axis in layout.axes)

    def layout(self, *axes: Axis) -> TensorLayout:
        return TensorLayout(self.num_ranks, axes)

    def cut(self, whole: np.ndarray, layout: TensorLayout) -> np.ndarray:
        """This process's part of a tensor: a view where there is nothing to pad."""
        return layout.cut(whole, self.rank)


WHOLE = Shard()


def _axis_map(split_by: tuple[int, ...]) -> AxisMap:
    return split_by if len(split_by) > 1 else split_by[0] if split_by else -1
