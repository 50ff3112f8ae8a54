"""S-LoRA (arXiv:2311.03285): every row of a batch gets its own adapter's low-rank update, in grouped matmuls."""

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.ops import Primitive
from mindspore.ops import auto_generate as gen

from mindgen.adapters.formats.peft import LoraPair
from mindgen.adapters.slot_layout import SlotLevel
from mindgen.kernels.arena import Arena
from mindgen.kernels.row_memory import RowMemory
from mindgen.layers.device_rows import zeros_parameter
from mindgen.layers.packed_form import LoraBlock, PackedForm
from mindgen.layers.parameters import share
from mindgen.layers.spec import LayerSpec
from mindgen.parallel.layout import Axis, TensorLayout


class LoraLevel(nn.Cell):
    """(x A_e) B_e for rows that lie sorted by adapter slot e; of each adapter the ranks of one level.

    A packed linear has P parts, each with a pair of its own. The weights of all slots are stacked: A (E, in, P*r) for
    all parts, B (E, r, out) for each, with zeros where an adapter has fewer ranks or no such part. B holds the
    adapter's scaling.
    """

    def __init__(self, layer: LayerSpec, level: SlotLevel, arena: Arena | None) -> None:
        super().__init__()
        inputs, parts, dtype, shard = layer.inputs, tuple(layer.parts.values()), layer.dtype, layer.shard
        self.in_features = shard.sliced.size(inputs)
        self.part_sizes = tuple(shard.sliced.size(axis) for axis in parts)
        self.first_rank, self.rank = level.first_rank, level.rank
        self.num_slots = level.num_slots
        self.num_parts = num_parts = len(parts)
        slots = Axis(level.num_slots)
        self.a_layout = shard.layout(slots, inputs, Axis(num_parts * level.rank))
        self.b_layouts = [shard.layout(slots, Axis(level.rank), axis) for axis in parts]
        self.lora_a, self.a_memory = zeros_parameter(self.a_layout, dtype, "lora_a", shard, arena)
        made = [
            zeros_parameter(layout, dtype, f"lora_b.{part}", shard, arena) for part, layout in enumerate(self.b_layouts)
        ]
        self.lora_b = ParameterTuple([parameter for parameter, _ in made])
        self.b_memory = [memory for _, memory in made]
        self.multiply_a = _grouped_matmul(layer.cuts_in, 1)
        self.multiply_b = _grouped_matmul(1, layer.cuts_out)
        self.split = ops.Split(1, num_parts)
        self.concat = ops.Concat(1)

    def layouts(self) -> dict[str, TensorLayout]:
        """Of the stacked weights, by the names of MindSpore's parameters."""
        b = {parameter.name: layout for parameter, layout in zip(self.lora_b, self.b_layouts, strict=True)}
        return {self.lora_a.name: self.a_layout} | b

    def memories(self) -> list[RowMemory]:
        return [self.a_memory, *self.b_memory]

    def plan(self, pairs: list[tuple[str, LoraPair | None]], form: PackedForm) -> LoraBlock | None:
        """Room in a form for the pair of each part, by its module's name; None if there is nothing for this level."""
        ranks = [
            range(self.first_rank, min(self.first_rank + self.rank, pair.rank if pair else 0)) for _, pair in pairs
        ]
        if not any(ranks):
            return None
        a = form.reserve(self.in_features, self.num_parts * self.rank)
        block = LoraBlock(a, [form.reserve(self.rank, size) for size in self.part_sizes], self.rank)
        for part, (module, pair) in enumerate(pairs):
            if pair is not None and ranks[part]:
                form.turn(module, pair, ranks[part], block, part)
        return block

    def slot_parts(self, block: LoraBlock | None) -> list[tuple[int | None, RowMemory]]:
        """What fills a slot with a block: where in an adapter's memory a row lies, or None for zeros, and whose row."""
        if block is None:
            return [(None, self.a_memory)]  # whatever b holds, it is multiplied by zeros
        return [(block.a, self.a_memory), *zip(block.b, self.b_memory, strict=True)]

    def construct(self, x: Tensor, segment_ends: Tensor) -> Tensor:
        """x (T, in) to (T, out); segment_ends (E,) int64: slot e has the rows up to segment_ends[e], others get 0."""
        low_rank = self.multiply_a((x,), (self.lora_a,), None, None, None, None, None, segment_ends)[0]  # (T, P*r)
        if self.num_parts == 1:
            return self.multiply_b((low_rank,), (self.lora_b[0],), None, None, None, None, None, segment_ends)[0]
        low = self.split(low_rank)  # P of (T, r)
        deltas: tuple[Tensor, ...] = ()
        for part in range(self.num_parts):
            deltas += (
                self.multiply_b((low[part],), (self.lora_b[part],), None, None, None, None, None, segment_ends)[0],
            )
        return self.concat(deltas)


def _grouped_matmul(cuts_in: int, cuts_out: int) -> Primitive:
    """x (T, K) to (T, N) by weights (E, K, N), each group of rows by its own; cut along K or along N.

    It takes and gives tuples of one. Lists would double the time that MindSpore needs to compile the network.
    """
    # split_item 3: one tensor in, one out; group_type 0: the rows are what is grouped.
    primitive = gen.GroupedMatmul(split_item=3, group_type=0)
    absent = ((),)  # bias, scales, offsets
    return primitive.shard((((1, cuts_in),), ((1, cuts_in, cuts_out),), *[absent] * 5, (1,)))


class TableLevel(LoraLevel):
    """The same for an embedding, where x A_e is a row of A (E, V, r): e * V + token of the table (E*V, r)."""

    def __init__(self, layer: LayerSpec, level: SlotLevel, arena: Arena | None) -> None:
        super().__init__(layer, level, arena)
        assert isinstance(self.a_memory, np.ndarray)
        share(self.lora_a, self.a_memory.reshape(-1, level.rank), layer.dtype)
        self.gather = ops.Gather()

    def construct(self, rows: Tensor, segment_ends: Tensor) -> Tensor:
        """rows (T,) of the table to (T, out)."""
        return self.multiply_b(
            (self.gather(self.lora_a, rows, 0),), (self.lora_b[0],), None, None, None, None, None, segment_ends
        )[0]


class SplitTableLevel(TableLevel):
    """The same for a rank's part of the vocabulary; row -1 is for tokens of others, and gives zeros."""

    def __init__(self, layer: LayerSpec, level: SlotLevel, arena: Arena | None) -> None:
        super().__init__(layer, level, arena)
        self.lookup = ops.EmbeddingLookup()

    def construct(self, rows: Tensor, segment_ends: Tensor) -> Tensor:
        return self.multiply_b(
            (self.lookup(self.lora_a, rows, 0),), (self.lora_b[0],), None, None, None, None, None, segment_ends
        )[0]
