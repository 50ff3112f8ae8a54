"""Token embedding."""

from mindspore import Tensor, nn, ops

from mindgen.layers.parameters import WeightSource, empty_parameter, share


class Embedding(nn.Cell):
    """x (T, H) = weight (V, H) at the token ids (T,)."""

    def __init__(self, vocab_size: int, hidden_size: int, dtype: str) -> None:
        super().__init__()
        self.shape = (vocab_size, hidden_size)
        self.weight = empty_parameter(dtype, "weight")
        self.gather = ops.Gather()

    def load(self, source: WeightSource, name: str) -> None:
        share(self.weight, source.take(f"{name}.weight", self.shape), source.dtype)

    def construct(self, input_ids: Tensor) -> Tensor:
        return self.gather(self.weight, input_ids, 0)
