"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

from mindspore import Tensor, nn, ops

from mindgen.adapters.slicing import slice_pair
from mindgen.checkpoint.peft import LoraPair
from mindgen.layers.lora import LoraBlock, LoraLevel
from mindgen.layers.parameters import WeightSource, split_parameter
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
        axis = next(iter(parts.values()))  # all are split alike
        cuts_in, cuts_out = shard.cuts(inputs), shard.cuts(axis)
        self.weight = split_parameter(shard.layout(axis, inputs), dtype, "weight", shard)
        self.has_bias = bias
        self.bias = split_parameter(shard.layout(axis), dtype, "bias", shard) if bias else None
        self.matmul = ops.MatMul(transpose_b=True).shard(((1, cuts_in), (cuts_out, cuts_in)))
        self.add = ops.Add().shard(((1, cuts_out), (cuts_out,)))
        self.lora = nn.CellList([])
        self.is_partial = bool(inputs.split_by) and not shard.sliced_by_compiler
        if self.is_partial:
            self.all_reduce = ops.AllReduce()

    def linears(self) -> list["Linear"]:
        return [self]

    def layouts(self) -> dict[str, TensorLayout]:
        """Of the weights (out, in), by Hugging Face module name."""
        return {name: self.shard.layout(axis, self.inputs) for name, axis in self.parts.items()}

    def weight_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.weight": layout for name, layout in self.layouts().items()}

    def bias_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.bias": self.shard.layout(axis) for name, axis in self.parts.items()} if self.has_bias else {}

    def load(self, source: WeightSource) -> None:
        """Maps a single weight; lays packed ones side by side in one copy."""
        source.fill_together(self.weight, self.weight_layouts())
        if self.bias is not None:
            source.fill_together(self.bias, self.bias_layouts())

    def enable_lora(self, levels: list[SlotLevel]) -> None:
        """Makes room for adapters; to be called before the network is compiled."""
        axes = tuple(self.parts.values())
        self.lora = nn.CellList([LoraLevel(self.inputs, axes, level, self.dtype, self.shard) for level in levels])
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


class SeparateLinears(nn.Cell):
    """Linears of the same input with a matmul each: MindSpore's compiler cuts slices of one weight, not of several."""

    def __init__(self, inputs: Axis, parts: dict[str, Axis], dtype: str, bias: bool, shard: Shard) -> None:
        super().__init__()
        self.parts = nn.CellList([Linear(inputs, {name: axis}, dtype, bias, shard) for name, axis in parts.items()])

    def linears(self) -> list[Linear]:
        return list(self.parts)

    def construct(self, x: Tensor, segment_ends: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = ()
        for linear in self.parts:
            outputs = (*outputs, linear(x, segment_ends))
        return outputs


class AlreadySplit(nn.Cell):
    """Stands where packed outputs are split, for outputs that never were packed."""

    def construct(self, outputs: tuple[Tensor, ...], sizes: tuple[int, ...], axis: int) -> tuple[Tensor, ...]:
        return outputs


def packed_linear(inputs: Axis, parts: dict[str, Axis], dtype: str, bias: bool, shard: Shard) -> nn.Cell:
    """A Linear whose outputs lie side by side; or SeparateLinears, which give a tuple."""
    return (SeparateLinears if shard.sliced_by_compiler else Linear)(inputs, parts, dtype, bias, shard)
