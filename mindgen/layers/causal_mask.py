"""Which tokens must not look at which, as Ascend's attention ops want to be told."""

import numpy as np
from mindspore import Tensor, nn, ops

from mindgen.kernels import dtypes
from mindgen.layers.parameters import MINDSPORE_DTYPES, as_tensor

_SIZE = 128
_HIDDEN = -10000.0


def prompt_mask(dtype: str) -> Tensor:
    """Of FlashAttentionScore: the strict upper triangle, 1 in bfloat16, -10000 in float16."""
    triangle = np.triu(np.ones((_SIZE, _SIZE), np.float32), 1)
    return as_tensor(dtypes.from_float32(triangle if dtype == "bfloat16" else triangle * _HIDDEN, dtype), dtype)


class PagedMask(nn.Cell):
    """Of PagedAttention: -10000 (T, N) at all positions behind a token's own, whatever its sequence.

    Cards look at it in batches in which a sequence has several tokens, and need it there.
    """

    def __init__(self, num_positions: int, dtype: str) -> None:
        super().__init__()
        self.places = Tensor(np.arange(num_positions, dtype=np.int32)[None])  # (1, N)
        self.dtype = MINDSPORE_DTYPES[dtype]
        self.hidden = Tensor(_HIDDEN, self.dtype)
        self.expand = ops.ExpandDims().shard(((1,),))
        self.greater = ops.Greater().shard(((1, 1), (1, 1)))
        self.cast = ops.Cast().shard(((1, 1),))
        self.mul = ops.Mul().shard(((1, 1), ()))

    def construct(self, positions: Tensor) -> Tensor:
        is_behind = self.greater(self.places, self.expand(positions, 1))
        return self.mul(self.cast(is_behind, self.dtype), self.hidden)


class NoMask(nn.Cell):
    """Stands in its place on the CPU, whose kernels follow the lengths."""

    def construct(self, positions: Tensor) -> None:
        return None
