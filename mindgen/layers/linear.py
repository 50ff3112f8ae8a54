"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

from mindspore import Tensor, nn, ops

from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.lora import LoraDelta
from mindgen.layers.parameters import WeightSource, empty_parameter, share


class Linear(nn.Cell):
    """y (T, out) = x (T, in) W^T + b, then the batch's LoRA updates.

    Attributes:
        parts: the Hugging Face module names whose outputs lie side by side in y, with their sizes.
    """

    def __init__(self, in_features: int, parts: dict[str, int], dtype: str, bias: bool = False) -> None:
        super().__init__()
        self.in_features = in_features
        self.parts = parts
        self.dtype = dtype
        self.weight = empty_parameter(dtype, "weight")
        self.has_bias = bias
        self.bias = empty_parameter(dtype, "bias") if bias else None
        self.matmul = ops.MatMul(transpose_b=True)
        self.add = ops.Add()
        self.lora: LoraDelta | None = None

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        weights = {f"{name}.weight": (size, self.in_features) for name, size in self.parts.items()}
        share(self.weight, source.take_together(weights), source.dtype)
        if self.bias is not None:
            biases = {f"{name}.bias": (size,) for name, size in self.parts.items()}
            share(self.bias, source.take_together(biases), source.dtype)

    def enable_lora(self, num_slots: int, max_rank: int) -> None:
        """Makes room for adapters; to be called before the network is compiled."""
        self.lora = LoraDelta(self.in_features, tuple(self.parts.values()), num_slots, max_rank, self.dtype)
        self.lora.update_parameters_name(f"{next(iter(self.parts))}.")  # MindSpore wants names to be unique

    def write_adapter(self, slot: int, pairs: dict[str, LoraPair]) -> None:
        """Puts an adapter's pairs for this layer, by module name, into a slot."""
        assert self.lora is not None, "enable_lora comes first: an adapter must not get lost here"
        self.lora.write_slot(slot, [pairs.get(name) for name in self.parts])

    def construct(self, x: Tensor, segment_ends: Tensor | None) -> Tensor:
        """segment_ends (E,) int64 as in LoraDelta, or None for a batch without adapters."""
        y = self.matmul(x, self.weight)
        if self.has_bias:
            y = self.add(y, self.bias)
        if self.lora is not None and segment_ends is not None:
            y = self.lora(x, y, segment_ends)
        return y
