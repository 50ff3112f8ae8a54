"""Activations."""

from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen


class SeparateSwiglu(nn.Cell):
    """silu(gate) * up, each (T, inner) and cut along inner; Swiglu's packed input cannot be."""

    def __init__(self, cuts: int) -> None:
        super().__init__()
        self.silu = gen.SiLU().shard(((1, cuts),))
        self.mul = ops.Mul().shard(((1, cuts), (1, cuts)))

    def construct(self, gate_up: tuple[Tensor, Tensor], axis: int) -> Tensor:
        gate, up = gate_up
        return self.mul(self.silu(gate), up)
