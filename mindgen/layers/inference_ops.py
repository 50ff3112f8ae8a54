"""The three paged-attention ops in the dtype of a model.

They are Ascend's primitives. MindSpore refuses those in float32, which is a debugging dtype on the CPU: there the
same C kernels are called as custom ops, which compile for static shapes only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mindspore
from mindspore import Tensor, nn, ops
from mindspore.ops import auto_generate as gen

from mindgen.kernels import plugin
from mindgen.parallel.layout import WHOLE, Shard

_ROTATE_HALF = 2


@dataclass(frozen=True, slots=True)
class InferenceOps:
    """Callables with the primitives' own arguments."""

    apply_rotary: Callable[..., tuple[Tensor, Tensor]]
    reshape_and_cache: Callable[..., Tensor]
    paged_attention: Callable[..., Tensor]


def inference_ops(num_heads: int, num_kv_heads: int, scale: float, dtype: str, shard: Shard = WHOLE) -> InferenceOps:
    if dtype == "float32":
        return InferenceOps(Float32Rotary(), _custom("ReshapeAndCacheFloat32", 0), Float32PagedAttention(scale))
    if shard.sliced_by_compiler:
        cuts = shard.num_ranks
        return InferenceOps(
            SlicedRotary(cuts), SlicedCacheWrite(cuts), SlicedPagedAttention(num_heads, scale, num_kv_heads, cuts)
        )
    return InferenceOps(
        gen.ApplyRotaryPosEmb(_ROTATE_HALF),
        gen.ReshapeAndCache(),
        gen.PagedAttention(num_heads, scale, num_kv_heads),
    )


def _custom(function: str, *outputs_like: int) -> ops.Custom:
    """A float32 entry of the library whose outputs have the shapes of the inputs at these positions."""

    def out_shape(*shapes: Any) -> Any:
        picked = tuple(shapes[position] for position in outputs_like)
        return picked if len(picked) > 1 else picked[0]

    out_dtype = tuple(mindspore.float32 for _ in outputs_like) if len(outputs_like) > 1 else mindspore.float32
    path = f"{plugin.library_path()}:{function}"
    return ops.Custom(path, out_shape=out_shape, out_dtype=out_dtype, func_type="aot")


class Float32Rotary(nn.Cell):
    def __init__(self) -> None:
        super().__init__()
        self.custom = _custom("ApplyRotaryPosEmbFloat32", 0, 1)

    def construct(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return self.custom(query, key, cos, sin, lengths)


class Float32PagedAttention(nn.Cell):
    """Takes PagedAttention's arguments; custom ops know no absent inputs and no scalars, so those are dropped here."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.custom = _custom("PagedAttentionFloat32", 0)
        self.scale = Tensor([scale], mindspore.float32)

    def construct(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        antiquant_scale: None,
        antiquant_offset: None,
        attn_mask: None,
        q_seq_lens: Tensor,
    ) -> Tensor:
        return self.custom(query, key_cache, value_cache, block_tables, context_lens, q_seq_lens, self.scale)


class SlicedRotary(nn.Cell):
    """ApplyRotaryPosEmb cut along the heads; MindSpore's compiler cuts (T, 1, heads*D), not (T, heads*D)."""

    def __init__(self, cuts: int) -> None:
        super().__init__()
        self.rotary = gen.ApplyRotaryPosEmb(_ROTATE_HALF)
        self.rotary.shard(((1, 1, cuts), (1, 1, cuts), (1, 1), (1, 1), (1,)))
        self.expand, self.squeeze = _sliced_reshapes(cuts)

    def construct(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        query, key = self.rotary(self.expand(query, 1), self.expand(key, 1), cos, sin, lengths)
        return self.squeeze(query), self.squeeze(key)


class SlicedCacheWrite(nn.Cell):
    """ReshapeAndCache cut along the heads."""

    def __init__(self, cuts: int) -> None:
        super().__init__()
        self.write = gen.ReshapeAndCache()
        self.write.shard(((1, 1, cuts), (1, 1, cuts), (1, 1, cuts, 1), (1, 1, cuts, 1), (1,)))
        self.expand, _ = _sliced_reshapes(cuts)

    def construct(
        self, key: Tensor, value: Tensor, key_cache: Tensor, value_cache: Tensor, slot_mapping: Tensor
    ) -> Tensor:
        return self.write(self.expand(key, 1), self.expand(value, 1), key_cache, value_cache, slot_mapping)


class SlicedPagedAttention(nn.Cell):
    """PagedAttention cut along the heads."""

    def __init__(self, num_heads: int, scale: float, num_kv_heads: int, cuts: int) -> None:
        super().__init__()
        # The compiler divides FlashAttentionScore's heads among the ranks, but not these.
        self.attention = gen.PagedAttention(num_heads // cuts, scale, num_kv_heads // cuts)
        caches = (1, 1, cuts, 1)
        self.attention.shard(((1, 1, cuts), caches, caches, (1, 1), (1,), (1, 1), (1,)))
        self.expand, self.squeeze = _sliced_reshapes(cuts)

    def construct(
        self,
        query: Tensor,
        key_cache: Tensor,
        value_cache: Tensor,
        block_tables: Tensor,
        context_lens: Tensor,
        antiquant_scale: None,
        antiquant_offset: None,
        attn_mask: Tensor,
        q_seq_lens: Tensor,
    ) -> Tensor:
        query = self.expand(query, 1)
        attended = self.attention(
            query, key_cache, value_cache, block_tables, context_lens, None, None, attn_mask, q_seq_lens
        )
        return self.squeeze(attended)


def _sliced_reshapes(cuts: int) -> tuple[ops.ExpandDims, ops.Squeeze]:
    """(T, heads*D) to (T, 1, heads*D), and back."""
    return ops.ExpandDims().shard(((1, cuts),)), ops.Squeeze(1).shard(((1, 1, cuts),))
