"""Root mean square normalization (arXiv:1910.07467), alone and fused with the residual addition."""

from mindspore import Tensor, nn
from mindspore.ops import auto_generate as gen

from mindgen.layers.parameters import WeightSource, empty_parameter, share


class RmsNorm(nn.Cell):
    """y = x / sqrt(mean(x^2) + epsilon) * weight, over the last axis."""

    def __init__(self, size: int, epsilon: float, dtype: str) -> None:
        super().__init__()
        self.size = size
        self.epsilon = epsilon
        self.weight = empty_parameter(dtype, "weight")
        self.rms_norm = gen.RmsNorm(epsilon)
        self.add_rms_norm = gen.AddRmsNorm()

    def load(self, source: WeightSource, name: str) -> None:
        share(self.weight, source.take_whole(f"{name}.weight", self.size), source.dtype)

    def construct(self, x: Tensor, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(norm(x), x), or with a residual (norm(x + residual), x + residual)."""
        if residual is None:
            return self.rms_norm(x, self.weight)[0], x
        normed, _, total = self.add_rms_norm(x, residual, self.weight, self.epsilon)
        return normed, total
