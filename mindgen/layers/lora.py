"""S-LoRA (arXiv:2311.03285): every row of a batch gets its own adapter's low-rank update, in two grouped matmuls."""

import numpy as np
from mindspore import ParameterTuple, Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen import dtypes
from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.parameters import zeros_parameter


class LoraDelta(nn.Cell):
    """y + (x A_e) B_e for rows that lie sorted by adapter slot e.

    A packed linear has P parts, each with a pair of its own. The weights of all slots are stacked: A (E, in, P*r) for
    all parts, B (E, r, out) for each, with zeros where an adapter's rank is smaller or it has no such part. Slot 0,
    the base model's, stays zero. B holds the adapter's scaling.
    """

    def __init__(
        self, in_features: int, part_sizes: tuple[int, ...], num_slots: int, max_rank: int, dtype: str
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.max_rank = max_rank
        self.num_parts = num_parts = len(part_sizes)
        a_shape = (num_slots, in_features, num_parts * max_rank)
        self.lora_a, self.a_memory = zeros_parameter(a_shape, dtype, "lora_a")
        made = [
            zeros_parameter((num_slots, max_rank, size), dtype, f"lora_b.{part}")
            for part, size in enumerate(part_sizes)
        ]
        self.lora_b = ParameterTuple([parameter for parameter, _ in made])
        self.b_memory = [memory for _, memory in made]
        # split_item 3: one tensor in, one out; group_type 0: the rows are what is grouped.
        self.grouped_matmul = gen.GroupedMatmul(split_item=3, group_type=0)
        self.split = ops.Split(1, num_parts)
        self.concat = ops.Concat(1)
        self.add = ops.Add()

    def write_slot(self, slot: int, pairs: list[LoraPair | None]) -> None:
        """Fills a slot with one adapter's pair for each part, None where it has none."""
        self.a_memory[slot] = 0
        for part, (pair, b_memory) in enumerate(zip(pairs, self.b_memory, strict=True)):
            b_memory[slot] = 0
            if pair is not None:
                rank = pair.a.shape[0]
                first = part * self.max_rank
                scaled_b = pair.b.T * np.float32(pair.scaling)  # (r, out)
                self.a_memory[slot, :, first : first + rank] = dtypes.from_float32(pair.a.T, self.dtype)
                b_memory[slot, :rank] = dtypes.from_float32(scaled_b, self.dtype)

    def construct(self, x: Tensor, y: Tensor, segment_ends: Tensor) -> Tensor:
        """x (T, in), y (T, out), segment_ends (E,) int64: slot e has the rows up to segment_ends[e]."""
        low_rank = self._multiply(x, self.lora_a, segment_ends)  # (T, P*r)
        if self.num_parts == 1:
            return self.add(y, self._multiply(low_rank, self.lora_b[0], segment_ends))
        deltas: tuple[Tensor, ...] = ()
        for part, low in enumerate(self.split(low_rank)):  # P of (T, r)
            deltas = (*deltas, self._multiply(low, self.lora_b[part], segment_ends))
        return self.add(y, self.concat(deltas))

    def _multiply(self, x: Tensor, weights: Tensor, segment_ends: Tensor) -> Tensor:
        """x (T, K) to (T, N), weights (E, K, N)."""
        return self.grouped_matmul([x], [weights], None, None, None, None, None, segment_ends)[0]
