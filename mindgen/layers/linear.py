"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

import numpy as np
from mindspore import Tensor, ops

from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.parallel.layout import WHOLE, Axis, Shard, TensorLayout


class Linear(AdaptedLayer):
    """y (T, out) = x (T, in) W^T + b, then the batch's LoRA updates.

    Where the ranks split the outputs (column-parallel), each has its own; where they split the inputs (row-parallel),
    their products, LoRA's included, are added up.

    Args:
        parts: the Hugging Face module names whose outputs lie side by side in y, with their axes.
        output_dtype: of y, if it is not the weights'.
    """

    def __init__(
        self,
        inputs: Axis,
        parts: dict[str, Axis],
        dtype: str,
        bias: bool = False,
        shard: Shard = WHOLE,
        output_dtype: str | None = None,
    ) -> None:
        super().__init__(inputs, parts, dtype, output_dtype or dtype, shard)
        self.weight = empty_parameter(dtype, "weight")
        self.has_bias = bias
        self.bias = empty_parameter(dtype, "bias") if bias else None
        self.matmul = ops.MatMul(transpose_b=True)

    def weight_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.weight": layout for name, layout in self.layouts().items()}

    def bias_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.bias": self.shard.layout(axis) for name, axis in self.parts.items()} if self.has_bias else {}

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        share(self.weight, source.take_together(self.weight_layouts()), source.dtype)
        if self.bias is not None:
            share(self.bias, source.take_together(self.bias_layouts()), source.dtype)

    def tie(self, weight: np.ndarray) -> None:
        """Takes a weight (out, in) that another layer has loaded."""
        share(self.weight, weight, self.dtype)

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        segment_ends, slots = adapter_rows
        y = self.matmul(x, self.weight)
        if self.has_bias and not self.is_partial:
            y = self.add(y, self.bias)
        if self.casts:
            y = self.cast(y, self.mindspore_dtype)
        y = self.add_lora(x, y, segment_ends)
        if self.is_partial:
            y = self.all_reduce(y)
            if self.has_bias:
                y = self.add(y, self.bias)
        return self.scale_and_shift(y, slots)
