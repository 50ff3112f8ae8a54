"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

from mindspore import Tensor, nn, ops

from mindgen.adapters.slicing import slice_pair
from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.lora import LoraBlock, LoraLevel
from mindgen.layers.parameters import WeightSource, empty_parameter, share
from mindgen.parallel.layout import WHOLE, Axis, Shard, TensorLayout
from mindgen.slot_layout import SlotLevel


class Linear(nn.Cell):
    """y (T, out) = x (T, in) W^T + b, then the batch's LoRA updates.

    Where the ranks split the outputs (column-parallel), each has its own; where they split the inputs (row-parallel),
    their products, LoRA's included, are added up.

    Attributes:
        parts: the Hugging Face module names whose outputs lie side by side in y, with their axes.
    """

    def __init__(
        self, inputs: Axis, parts: dict[str, Axis], dtype: str, bias: bool = False, shard: Shard = WHOLE
    ) -> None:
        super().__init__()
        self.inputs = inputs
        self.parts = parts
        self.dtype = dtype
        self.shard = shard
        self.weight = empty_parameter(dtype, "weight")
        self.has_bias = bias
        self.bias = empty_parameter(dtype, "bias") if bias else None
        self.matmul = ops.MatMul(transpose_b=True)
        self.add = ops.Add()
        self.lora = nn.CellList([])
        self.is_partial = bool(inputs.split_by) and shard.rank is not None
        if self.is_partial:
            self.all_reduce = ops.AllReduce()

    def layouts(self) -> dict[str, TensorLayout]:
        """Of the weights (out, in), by Hugging Face module name."""
        return {name: self.shard.layout(axis, self.inputs) for name, axis in self.parts.items()}

    def weight_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.weight": layout for name, layout in self.layouts().items()}

    def bias_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.bias": self.shard.layout(axis) for name, axis in self.parts.items()} if self.has_bias else {}

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        share(self.weight, source.take_together(self.weight_layouts()), source.dtype)
        if self.bias is not None:
            share(self.bias, source.take_together(self.bias_layouts()), source.dtype)

    def enable_lora(self, levels: list[SlotLevel]) -> None:
        """Makes room for adapters; to be called before the network is compiled."""
        sizes = tuple(self.shard.size(axis) for axis in self.parts.values())
        in_features = self.shard.size(self.inputs)
        self.lora = nn.CellList([LoraLevel(in_features, sizes, level, self.dtype) for level in levels])
        self.lora.update_parameters_name(f"{next(iter(self.parts))}.")  # MindSpore wants names to be unique

    def pack_adapter(self, pairs: dict[str, LoraPair]) -> list[LoraBlock | None]:
        """An adapter's pairs for this layer, by module name, in the form of a slot: a block for each level."""
        layouts = self.layouts()
        own = [slice_pair(pairs[name], layouts[name], self.shard) if name in pairs else None for name in self.parts]
        return [level.pack(own) for level in self.lora]

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
        if self.has_bias and not self.is_partial:
            y = self.add(y, self.bias)
        for index, ends in enumerate(segment_ends):
            y = self.lora[index](x, y, ends)
        if self.is_partial:
            y = self.all_reduce(y)
            if self.has_bias:
                y = self.add(y, self.bias)
        return y
