"""An adapter's LoRA in one piece of memory, as slots have it: where each part lies, what fills it, where it goes."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mindgen.adapters.formats.peft import LoraPair
from mindgen.kernels.arena import Arena, padded
from mindgen.kernels.dtypes import STORAGE
from mindgen.kernels.library import DType, KernelLibrary

_DTYPES = {name: int(DType[name.upper()]) for name in STORAGE}
_TURN = np.dtype(  # mg_scale_transpose_call
    [
        ("x", np.uintp), ("y", np.uintp), ("x_step", np.int64), ("y_step", np.int64), ("rows", np.int64),
        ("columns", np.int64), ("from", np.int32), ("to", np.int32), ("scale", np.float32),
    ],
    align=True,
)  # fmt: skip
_COPY = np.dtype([("x", np.uintp), ("y", np.uintp), ("bytes", np.int64)])  # mg_copy_call


@dataclass(frozen=True, slots=True)
class LoraBlock:
    """Where one level of one linear lies, in bytes from the start: a (in, P*r), b of each part (r, out); r is rank."""

    a: int
    b: list[int]
    rank: int


class SlotCopies:
    """What goes where when adapters of a form come into a slot.

    Args:
        copies: from a place in an adapter's memory, or zeros, into an array in one piece that lives like the slot.
    """

    def __init__(self, copies: list[tuple[int | None, np.ndarray]]) -> None:
        assert all(target.flags.c_contiguous for _, target in copies)
        self._copies = np.array([(place or 0, address(target), target.nbytes) for place, target in copies], _COPY)
        self._is_clearing = np.array([place is None for place, _ in copies], bool)

    def run(self, memory: np.ndarray, kernels: KernelLibrary) -> None:
        """With the memory of one adapter."""
        copies = self._copies.copy()
        copies["x"] += np.uintp(address(memory))
        copies["x"][self._is_clearing] = 0
        kernels.call("copy_all", copies, len(copies))


class PackedForm:
    """What adapters of the same modules, ranks and dtypes have in common; it is worked out once for all of them.

    Args:
        pairs: of one of them.
        dtype: of the network.

    Attributes:
        num_bytes: of a packed adapter.
        blocks: of each layer and level; None where there is nothing.
        copies: into each slot, while so many layers have LoRA.
    """

    def __init__(self, pairs: Mapping[str, LoraPair], dtype: str) -> None:
        self.num_bytes = 0
        self.blocks: list[list[LoraBlock | None]] = []
        self.copies: dict[tuple[int, int], SlotCopies] = {}
        self._modules = {module: index for index, module in enumerate(pairs)}
        self._dtype = dtype
        self._item_bytes = STORAGE[dtype]().itemsize
        self._turns: list[tuple[int, ...]] = []
        self._halves: list[int] = []  # of each turn: twice the module's number, and 1 more for B

    def reserve(self, rows: int, columns: int) -> int:
        """Where the next matrix of the network's dtype lies."""
        place = self.num_bytes
        self.num_bytes += padded(rows * columns * self._item_bytes)
        return place

    def turn(self, module: str, pair: LoraPair, ranks: range, block: LoraBlock, part: int) -> None:
        """Has ranks of a module's pair put into its part of a block: A (r, in) as (in, r), B (out, r) as (r, out)."""
        a, a_step, b = block.a + part * block.rank * self._item_bytes, len(block.b) * block.rank, block.b[part]
        count, half = len(ranks), 2 * self._modules[module]
        for x, offset, y, y_step, rows, columns in (
            (pair.a, ranks.start * pair.a.strides[0], a, a_step, count, pair.a.shape[1]),
            (pair.b, ranks.start * pair.b.itemsize, b, len(pair.b), len(pair.b), count),
        ):
            types = _DTYPES[pair.dtype], _DTYPES[self._dtype]
            self._turns.append((offset, y, _row_step(x), y_step, rows, columns, *types, 0))
            self._halves.append(half)
            half += 1

    @cached_property
    def _records(self) -> np.ndarray:
        return np.array(self._turns, _TURN)

    def memory(self) -> np.ndarray:
        """For an adapter of this form."""
        return Arena(self.num_bytes).zeros((self.num_bytes,), np.uint8)

    def fill(self, memory: np.ndarray, pairs: Mapping[str, LoraPair], kernels: KernelLibrary) -> None:
        """With an adapter of this form, B with its scaling; the interpreter is free for other threads.

        Args:
            memory: zeros, or what another adapter of this form was in: the same places stay zero.
        """
        halves = [(address(half), scale) for p in pairs.values() for half, scale in ((p.a, 1.0), (p.b, p.scaling))]
        turns = self._records.copy()
        turns["x"] += np.array([start for start, _ in halves], np.uintp)[self._halves]
        turns["y"] += np.uintp(address(memory))
        turns["scale"] = np.array([scale for _, scale in halves], np.float32)[self._halves]
        kernels.call("scale_transpose_all", turns, len(turns))


def form_key(pairs: Mapping[str, LoraPair]) -> Hashable:
    """The same for all adapters of a form."""
    return tuple((module, p.dtype, p.a.shape, p.a.strides, p.b.shape, p.b.strides) for module, p in pairs.items())


def in_rows(pair: LoraPair) -> LoraPair:
    """The pair with the elements of each row side by side, as kernels want them."""
    if pair.a.strides[1] == pair.a.itemsize and pair.b.strides[1] == pair.b.itemsize:
        return pair
    return replace(pair, a=np.ascontiguousarray(pair.a), b=np.ascontiguousarray(pair.b))


def address(x: np.ndarray) -> int:
    return x.__array_interface__["data"][0]  # type: ignore[no-any-return]


def _row_step(x: np.ndarray) -> int:
    """From row to row in elements; numpy may give a single row any stride."""
    return x.strides[0] // x.itemsize if len(x) > 1 else x.shape[1]
