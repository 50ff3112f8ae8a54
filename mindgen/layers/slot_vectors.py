"""A vector for each adapter slot, and one for the base model."""

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen import dtypes
from mindgen.layers.parameters import zeros_parameter


class SlotVectors(nn.Cell):
    """The vectors (T, size) of rows whose slots (T,) are given; slot E is the base model's, which has the default."""

    def __init__(self, num_slots: int, size: int, default: float, dtype: str) -> None:
        super().__init__()
        self.dtype = dtype
        self.default = default
        self.table, self.memory = zeros_parameter((num_slots + 1, size), dtype, "table")
        for slot in range(num_slots + 1):
            self.write_slot(slot, None)
        self.gather = ops.Gather()

    def write_slot(self, slot: int, values: np.ndarray | None) -> None:
        """values (size,) in float32; None is the default."""
        self.memory[slot] = dtypes.from_float32(
            np.asarray(self.default if values is None else values, np.float32), self.dtype
        )

    def construct(self, slots: Tensor) -> Tensor:
        return self.gather(self.table, slots, 0)
