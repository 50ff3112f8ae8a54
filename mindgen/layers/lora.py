"""S-LoRA (arXiv:2311.03285): every row of a batch gets its own adapter's low-rank update, in two grouped matmuls."""

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen import dtypes
from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.parameters import zeros_parameter


class LoraDelta(nn.Cell):
    """y + (x A_e) B_e for rows that lie sorted by adapter slot e.

    The weights of all slots are stacked: A (E, in, P*r) and B (E, P*r, out) for the P parts of a packed linear,
    B block-diagonal, with zeros where an adapter's rank is smaller or it has no such part. Slot 0, the base
    model's, stays zero. B holds the adapter's scaling.
    """

    def __init__(
        self, in_features: int, part_sizes: tuple[int, ...], num_slots: int, max_rank: int, dtype: str
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.max_rank = max_rank
        self.part_sizes = part_sizes
        total_rank = len(part_sizes) * max_rank
        self.lora_a, self.a_memory = zeros_parameter((num_slots, in_features, total_rank), dtype, "lora_a")
        self.lora_b, self.b_memory = zeros_parameter((num_slots, total_rank, sum(part_sizes)), dtype, "lora_b")
        # split_item 3: one tensor in, one out; group_type 0: the rows are what is grouped.
        self.grouped_matmul = gen.GroupedMatmul(split_item=3, group_type=0)
        self.add = ops.Add()

    def write_slot(self, slot: int, pairs: list[LoraPair | None]) -> None:
        """Fills a slot with one adapter's pair for each part, None where it has none."""
        self.a_memory[slot] = 0
        self.b_memory[slot] = 0
        column = 0
        for index, (pair, size) in enumerate(zip(pairs, self.part_sizes, strict=True)):
            if pair is not None:
                rows = slice(index * self.max_rank, index * self.max_rank + pair.a.shape[0])
                scaled_b = pair.b.T * np.float32(pair.scaling)  # (r, out)
                self.a_memory[slot, :, rows] = dtypes.from_float32(pair.a.T, self.dtype)
                self.b_memory[slot, rows, column : column + size] = dtypes.from_float32(scaled_b, self.dtype)
            column += size

    def construct(self, x: Tensor, y: Tensor, segment_ends: Tensor) -> Tensor:
        """x (T, in), y (T, out), segment_ends (E,) int64: slot e has the rows up to segment_ends[e]."""
        low_rank = self.grouped_matmul([x], [self.lora_a], None, None, None, None, None, segment_ends)[0]
        delta = self.grouped_matmul([low_rank], [self.lora_b], None, None, None, None, None, segment_ends)[0]
        return self.add(y, delta)
