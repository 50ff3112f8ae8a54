"""Root mean square normalization (arXiv:1910.07467), alone and fused with the residual addition, and layer
normalization."""

from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.parallel.layout import WHOLE, Axis, Shard


class RmsNorm(nn.Cell):
    """y = x / sqrt(mean(x^2) + epsilon) * weight, over the last axis.

    Args:
        cuts: into how many slices each axis of x is cut.
    """

    def __init__(
        self, size: int, epsilon: float, dtype: str, shard: Shard = WHOLE, cuts: tuple[int, ...] = (1, 1)
    ) -> None:
        super().__init__()
        self.layout = shard.layout(Axis(size))
        self.epsilon = epsilon
        self.weight = split_parameter(self.layout, dtype, "weight", shard)
        self.rms_norm = gen.RmsNorm(epsilon).shard((cuts, (1,)))
        self.add_rms_norm = gen.AddRmsNorm() if not shard.sliced_by_compiler else AddThenRmsNorm(epsilon)

    def load(self, source: WeightSource, name: str) -> None:
        source.fill(self.weight, f"{name}.weight", self.layout)

    def construct(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(norm(x), x), or with a residual (norm(x + residual), x + residual)."""
        if residual is None:
            return self.rms_norm(x, self.weight)[0], x
        normed, _, total = self.add_rms_norm(x, residual, self.weight, self.epsilon)
        return normed, total


class AddThenRmsNorm(nn.Cell):
    """AddRmsNorm in two ops, for MindSpore's compiler does not slice it."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.add = ops.Add().shard(((1, 1), (1, 1)))
        self.rms_norm = gen.RmsNorm(epsilon).shard(((1, 1), (1,)))

    def construct(self, x: Tensor, residual: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
        total = self.add(x, residual)
        normed, rstd = self.rms_norm(total, weight)
        return normed, rstd, total


class LayerNorm(nn.Cell):
    """y = (x - mean) / sqrt(variance + epsilon) * weight + bias, over the last axis (arXiv:1607.06450)."""

    def __init__(self, size: int, epsilon: float, dtype: str, shard: Shard = WHOLE) -> None:
        super().__init__()
        self.layout = shard.layout(Axis(size))
        self.weight = split_parameter(self.layout, dtype, "weight", shard)
        self.bias = split_parameter(self.layout, dtype, "bias", shard)
        self.layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=epsilon)
        self.layer_norm.shard(((1, 1), (1,), (1,)))

    def load(self, source: WeightSource, name: str) -> None:
        source.fill(self.weight, f"{name}.weight", self.layout)
        source.fill(self.bias, f"{name}.bias", self.layout)

    def construct(self, x: Tensor) -> Tensor:
        return self.layer_norm(x, self.weight, self.bias)[0]
