"""How the weights of a linear are kept, and what multiplies with them: a class for each form that they come in."""

from abc import abstractmethod

from mindspore import Tensor, nn, ops

from mindgen.layers.parameters import WeightSource, split_parameter
from mindgen.parallel.layout import Shard, TensorLayout


class LinearMethod(nn.Cell):
    """x (T, in) W^T for the weights W of a linear, which lie side by side along their outputs."""

    @abstractmethod
    def load(self, source: WeightSource, name: str | None = None) -> None:
        """Takes the weights; of a linear with one alone, it may be a tensor of another name.

        Raises:
            ModelError: one is missing, or of another shape.
        """

    @abstractmethod
    def tie(self, source: WeightSource, name: str) -> None:
        """Uses a weight (out, in) that another layer of this process has taken."""

    @abstractmethod
    def construct(self, x: Tensor) -> Tensor: ...


class DenseMethod(LinearMethod):
    """Weights in the dtype of the network.

    Args:
        layouts: of the weights (out, in), by the names of their tensors; their inputs and outputs are split alike.
        cuts: of the weight, into how many slices each axis is cut.
    """

    def __init__(self, layouts: dict[str, TensorLayout], cuts: tuple[int, int], dtype: str, shard: Shard) -> None:
        super().__init__()
        self.layouts = layouts
        self.weight = split_parameter(next(iter(layouts.values())), dtype, "weight", shard)
        self.matmul = ops.MatMul(transpose_b=True).shard(((1, cuts[1]), cuts))

    def load(self, source: WeightSource, name: str | None = None) -> None:
        """Maps a single weight; lays several side by side in one copy."""
        layouts = list(self.layouts.values())
        source.fill_together(self.weight, self.layouts if name is None else {name: layouts[0]})

    def tie(self, source: WeightSource, name: str) -> None:
        source.tie(self.weight, name)

    def construct(self, x: Tensor) -> Tensor:
        return self.matmul(x, self.weight)
