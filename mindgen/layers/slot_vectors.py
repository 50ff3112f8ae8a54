"""A vector for each adapter slot, and one for the base model."""

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.kernels import dtypes
from mindgen.layers.device_rows import zeros_parameter
from mindgen.parallel.layout import Axis, Shard, TensorLayout


class SlotVectors(nn.Cell):
    """The vectors (T, size) of rows whose slots (T,) are given; slot E is the base model's, which has the default.

    Args:
        axis: along which the vectors lie.
    """

    def __init__(self, num_slots: int, axis: Axis, default: float, dtype: str, shard: Shard) -> None:
        super().__init__()
        self.dtype = dtype
        self.default = default
        self.size = shard.sliced.size(axis)
        self.layout = shard.layout(Axis(num_slots + 1), axis)
        self.table, self.memory = zeros_parameter(self.layout, dtype, "table", shard)
        for slot in range(num_slots + 1):
            self.write_slot(slot, None)
        self.gather = ops.Gather().shard(((1, shard.cuts(axis)), (1,)))

    def layouts(self) -> dict[str, TensorLayout]:
        """By the names of MindSpore's parameters."""
        return {self.table.name: self.layout}

    def write_slot(self, slot: int, values: np.ndarray | None) -> None:
        """values (size,) in float32; None is the default."""
        vector = np.full(self.size, self.default, np.float32) if values is None else values
        self.memory[slot] = dtypes.from_float32(vector, self.dtype)

    def construct(self, slots: Tensor) -> Tensor:
        return self.gather(self.table, slots, 0)
