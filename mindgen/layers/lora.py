"""S-LoRA (arXiv:2311.03285): every row of a batch gets its own adapter's low-rank update, in grouped matmuls."""

from dataclasses import dataclass

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen import dtypes
from mindgen.checkpoint.peft import LoraPair
from mindgen.kernels import plugin
from mindgen.kernels.transpose import scale_transpose
from mindgen.layers.device_rows import zeros_parameter
from mindgen.layers.parameters import share
from mindgen.parallel.layout import Axis, Shard, TensorLayout
from mindgen.slot_layout import SlotLevel


@dataclass(frozen=True, slots=True)
class LoraBlock:
    """An adapter's weights for one level of one linear, as a slot has them: a (in, P*r), b of each part (r, out)."""

    a: np.ndarray
    b: list[np.ndarray]

    @property
    def num_bytes(self) -> int:
        return self.a.nbytes + sum(part.nbytes for part in self.b)


class LoraLevel(nn.Cell):
    """(x A_e) B_e for rows that lie sorted by adapter slot e; of each adapter the ranks of one level.

    A packed linear has P parts, each with a pair of its own. The weights of all slots are stacked: A (E, in, P*r) for
    all parts, B (E, r, out) for each, with zeros where an adapter has fewer ranks or no such part. B holds the
    adapter's scaling.
    """

    def __init__(self, inputs: Axis, parts: tuple[Axis, ...], level: SlotLevel, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.dtype = dtype
        self.in_features = shard.sliced.size(inputs)
        self.part_sizes = tuple(shard.sliced.size(axis) for axis in parts)
        self.first_rank, self.rank = level.first_rank, level.rank
        self.num_slots = level.num_slots
        self.num_parts = num_parts = len(parts)
        slots = Axis(level.num_slots)
        self.a_layout = shard.layout(slots, inputs, Axis(num_parts * level.rank))
        self.b_layouts = [shard.layout(slots, Axis(level.rank), axis) for axis in parts]
        self.lora_a, self.a_memory = zeros_parameter(self.a_layout, dtype, "lora_a", shard)
        made = [zeros_parameter(layout, dtype, f"lora_b.{part}", shard) for part, layout in enumerate(self.b_layouts)]
        self.lora_b = ParameterTuple([parameter for parameter, _ in made])
        self.b_memory = [memory for _, memory in made]
        self.multiply_a = GroupedMatmul(shard.cuts(inputs), 1)
        self.multiply_b = GroupedMatmul(1, shard.cuts(parts[0]))
        self.split = ops.Split(1, num_parts)
        self.concat = ops.Concat(1)

    def layouts(self) -> dict[str, TensorLayout]:
        """Of the stacked weights, by the names of MindSpore's parameters."""
        b = {parameter.name: layout for parameter, layout in zip(self.lora_b, self.b_layouts, strict=True)}
        return {self.lora_a.name: self.a_layout} | b

    def pack(self, pairs: list[LoraPair | None]) -> LoraBlock | None:
        """An adapter's pair for each part, None where it has none, in the form of a slot; None if there is nothing."""
        end = self.first_rank + self.rank
        if not any(pair is not None and len(pair.a) > self.first_rank for pair in pairs):
            return None
        storage, kernels = dtypes.STORAGE[self.dtype], plugin.load()
        block = LoraBlock(
            np.zeros((self.in_features, self.num_parts * self.rank), storage),
            [np.zeros((self.rank, size), storage) for size in self.part_sizes],
        )
        for part, pair in enumerate(pairs):
            if pair is None or len(pair.a) <= self.first_rank:
                continue
            a, b = pair.a[self.first_rank : end], pair.b[:, self.first_rank : end]  # (r, in), (out, r)
            first = part * self.rank
            scale_transpose(kernels, a, pair.dtype, block.a[:, first : first + len(a)], self.dtype)
            scale_transpose(kernels, b, pair.dtype, block.b[part][: len(a)], self.dtype, pair.scaling)
        return block

    def write_slot(self, slot: int, block: LoraBlock | None) -> None:
        """Puts a block into a slot; None clears it."""
        if block is None:
            self.a_memory[slot] = 0  # whatever b holds, it is multiplied by zeros
            return
        self.a_memory[slot] = block.a
        for memory, values in zip(self.b_memory, block.b, strict=True):
            memory[slot] = values

    def construct(self, x: Tensor, segment_ends: Tensor) -> Tensor:
        """x (T, in) to (T, out); segment_ends (E,) int64: slot e has the rows up to segment_ends[e], others get 0."""
        low_rank = self.multiply_a(x, self.lora_a, segment_ends)  # (T, P*r)
        if self.num_parts == 1:
            return self.multiply_b(low_rank, self.lora_b[0], segment_ends)
        deltas: tuple[Tensor, ...] = ()
        for part, low in enumerate(self.split(low_rank)):  # P of (T, r)
            deltas = (*deltas, self.multiply_b(low, self.lora_b[part], segment_ends))
        return self.concat(deltas)


class GroupedMatmul(nn.Cell):
    """x (T, K) to (T, N) by weights (E, K, N), each group of rows by its own; cut along K or along N."""

    def __init__(self, cuts_in: int, cuts_out: int) -> None:
        super().__init__()
        # split_item 3: one tensor in, one out; group_type 0: the rows are what is grouped.
        self.grouped_matmul = gen.GroupedMatmul(split_item=3, group_type=0)
        absent = ((),)  # bias, scales, offsets
        self.grouped_matmul.shard((((1, cuts_in),), ((1, cuts_in, cuts_out),), *[absent] * 5, (1,)))

    def construct(self, x: Tensor, weights: Tensor, segment_ends: Tensor) -> Tensor:
        return self.grouped_matmul([x], [weights], None, None, None, None, None, segment_ends)[0]


class TableLevel(LoraLevel):
    """The same for an embedding, where x A_e is a row of A (E, V, r): e * V + token of the table (E*V, r)."""

    def __init__(self, inputs: Axis, parts: tuple[Axis, ...], level: SlotLevel, dtype: str, shard: Shard) -> None:
        super().__init__(inputs, parts, level, dtype, shard)
        assert isinstance(self.a_memory, np.ndarray)
        share(self.lora_a, self.a_memory.reshape(-1, level.rank), dtype)
        self.gather = ops.Gather()

    def construct(self, rows: Tensor, segment_ends: Tensor) -> Tensor:
        """rows (T,) of the table to (T, out)."""
        return self.multiply_b(self.gather(self.lora_a, rows, 0), self.lora_b[0], segment_ends)


class SplitTableLevel(TableLevel):
    """The same for a rank's part of the vocabulary; row -1 is for tokens of others, and gives zeros."""

    def __init__(self, inputs: Axis, parts: tuple[Axis, ...], level: SlotLevel, dtype: str, shard: Shard) -> None:
        super().__init__(inputs, parts, level, dtype, shard)
        self.lookup = ops.EmbeddingLookup()

    def construct(self, rows: Tensor, segment_ends: Tensor) -> Tensor:
        return self.multiply_b(self.lookup(self.lora_a, rows, 0), self.lora_b[0], segment_ends)
