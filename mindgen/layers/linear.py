"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

import numpy as np
from mindspore import Tensor, ops

from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.parameters import WeightSource, empty_parameter, share


class Linear(AdaptedLayer):
    """y (T, out) = x (T, in) W^T + b, then the batch's LoRA updates.

    Args:
        parts: the Hugging Face module names whose outputs lie side by side in y, with their sizes.
        output_dtype: of y, if it is not the weights'.
    """

    def __init__(
        self, in_features: int, parts: dict[str, int], dtype: str, bias: bool = False, output_dtype: str | None = None
    ) -> None:
        super().__init__(in_features, parts, dtype, output_dtype or dtype)
        self.weight = empty_parameter(dtype, "weight")
        self.has_bias = bias
        self.bias = empty_parameter(dtype, "bias") if bias else None
        self.matmul = ops.MatMul(transpose_b=True)

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        weights = {f"{name}.weight": (size, self.in_features) for name, size in self.parts.items()}
        share(self.weight, source.take_together(weights), source.dtype)
        if self.bias is not None:
            biases = {f"{name}.bias": (size,) for name, size in self.parts.items()}
            share(self.bias, source.take_together(biases), source.dtype)

    def tie(self, weight: np.ndarray) -> None:
        """Takes a weight (out, in) that another layer has loaded."""
        share(self.weight, weight, self.dtype)

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        segment_ends, slots = adapter_rows
        y = self.matmul(x, self.weight)
        if self.has_bias:
            y = self.add(y, self.bias)
        if self.casts:
            y = self.cast(y, self.mindspore_dtype)
        return self.scale_and_shift(self.add_lora(x, y, segment_ends), slots)
