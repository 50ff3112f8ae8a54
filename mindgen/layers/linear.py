"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

from mindspore import Tensor, nn, ops

from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.lora import LoraBlock, LoraLevel
from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.slot_layout import SlotLevel


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
        self.lora = nn.CellList([])

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        weights = {f"{name}.weight": (size, self.in_features) for name, size in self.parts.items()}
        share(self.weight, source.take_together(weights), source.dtype)
        if self.bias is not None:
            biases = {f"{name}.bias": (size,) for name, size in self.parts.items()}
            share(self.bias, source.take_together(biases), source.dtype)

    def enable_lora(self, levels: list[SlotLevel]) -> None:
        """Makes room for adapters; to be called before the network is compiled."""
        sizes = tuple(self.parts.values())
        self.lora = nn.CellList([LoraLevel(self.in_features, sizes, level, self.dtype) for level in levels])
        self.lora.update_parameters_name(f"{next(iter(self.parts))}.")  # MindSpore wants names to be unique

    def pack_adapter(self, pairs: dict[str, LoraPair]) -> list[LoraBlock | None]:
        """An adapter's pairs for this layer, by module name, in the form of a slot: a block for each level."""
        return [level.pack([pairs.get(name) for name in self.parts]) for level in self.lora]

    def write_adapter(self, slot: int, blocks: list[LoraBlock | None]) -> None:
        """Puts an adapter's blocks for this layer into a slot."""
        for level, block in zip(self.lora, blocks, strict=True):
            if slot < level.num_slots:
                level.write_slot(slot, block)
            else:
                assert block is None, "the adapter's rank is above the slot's"

    def construct(self, x: Tensor, segment_ends: tuple[Tensor, ...]) -> Tensor:
        """segment_ends: of each level, as in LoraLevel; none for a batch without adapters."""
        y = self.matmul(x, self.weight)
        if self.has_bias:
            y = self.add(y, self.bias)
        for index, ends in enumerate(segment_ends):
            y = self.lora[index](x, y, ends)
        return y
