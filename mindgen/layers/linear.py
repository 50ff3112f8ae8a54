"""Linear layers: one matmul over one or several Hugging Face weights side by side, with LoRA on top."""

from dataclasses import replace

from mindspore import Tensor, nn, ops

from mindgen.layers.adapted import AdaptedLayer, AdapterRows
from mindgen.layers.linear_method import DenseMethod, LinearMethod
from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.layers.spec import LayerSpec
from mindgen.parallel.layout import TensorLayout


class Linear(AdaptedLayer):
    """y (T, out) = x (T, in) W^T + b, then the batch's LoRA updates.

    Where the ranks split the outputs (column-parallel), each has its own; where they split the inputs (row-parallel),
    their products, LoRA's included, are added up.

    Args:
        output_dtype: of y, if it is not the weights'.
    """

    def __init__(self, spec: LayerSpec, bias: bool = False, output_dtype: str | None = None) -> None:
        super().__init__(spec, output_dtype or spec.dtype)
        dtype, shard, axis = spec.dtype, spec.shard, next(iter(spec.parts.values()))
        self.method: LinearMethod = DenseMethod(self.weight_layouts(), (spec.cuts_out, spec.cuts_in), dtype, shard)
        self.has_bias = bias
        self.bias = split_parameter(shard.layout(axis), dtype, "bias", shard) if bias else None
        self.add_bias = ops.Add().shard(((1, spec.cuts_out), (spec.cuts_out,)))

    def linears(self) -> list["Linear"]:
        return [self]

    def weight_layouts(self) -> dict[str, TensorLayout]:
        return {f"{name}.weight": layout for name, layout in self.layouts().items()}

    def bias_layouts(self) -> dict[str, TensorLayout]:
        if not self.has_bias:
            return {}
        return {f"{name}.bias": self.spec.shard.layout(axis) for name, axis in self.spec.parts.items()}

    def load(self, source: WeightSource) -> None:
        self.method.load(source)
        if self.bias is not None:
            source.fill_together(self.bias, self.bias_layouts())

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> Tensor:
        segment_ends, slots = adapter_rows
        y = self.method(x)
        if self.has_bias and not self.is_partial:
            y = self.add_bias(y, self.bias)
        if self.casts:
            y = self.cast(y, self.mindspore_dtype)
        y = self.add_lora(x, y, segment_ends)
        if self.is_partial:
            y = self.all_reduce(y)
            if self.has_bias:
                y = self.add_bias(y, self.bias)
        return self.scale_and_shift(y, slots)


class SeparateLinears(nn.Cell):
    """Linears of the same input with a matmul each: MindSpore's compiler cuts slices of one weight, not of several."""

    def __init__(self, spec: LayerSpec, bias: bool) -> None:
        super().__init__()
        specs = [replace(spec, parts={name: axis}) for name, axis in spec.parts.items()]
        self.parts = nn.CellList([Linear(each, bias) for each in specs])

    def linears(self) -> list[Linear]:
        return list(self.parts)

    def construct(self, x: Tensor, adapter_rows: AdapterRows) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = ()
        for linear in self.parts:
            outputs = (*outputs, linear(x, adapter_rows))
        return outputs


class AlreadySplit(nn.Cell):
    """Stands where packed outputs are split, for outputs that never were packed."""

    def construct(self, outputs: tuple[Tensor, ...], sizes: tuple[int, ...], axis: int) -> tuple[Tensor, ...]:
        return outputs


def packed_linear(spec: LayerSpec, bias: bool) -> nn.Cell:
    """A Linear whose outputs lie side by side; or SeparateLinears, which give a tuple."""
    return (SeparateLinears if spec.shard.sliced_by_compiler else Linear)(spec, bias)
