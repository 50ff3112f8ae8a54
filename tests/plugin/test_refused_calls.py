"""What the op plugin does not serve ends in an exception and in one line that tells what came and what to do."""

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate as gen
from op_calls import int32, int64

HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 8
bfloat16, float16, float32, float64 = mindspore.bfloat16, mindspore.float16, mindspore.float32, mindspore.float64


def zeros(*shape, dtype=bfloat16):
    return Tensor(np.zeros(shape), dtype)


def rms_norm(dtype, gamma_dtype=None):
    return gen.RmsNorm(1e-5)(zeros(3, 32, dtype=dtype), zeros(32, dtype=gamma_dtype or dtype))[0]


def add_rms_norm(dtype):
    x = zeros(3, 32, dtype=dtype)
    return gen.AddRmsNorm()(x, x, zeros(32, dtype=dtype), 1e-5)[0]


def layer_norm(axis=-1, gamma_dtype=bfloat16):
    gamma = zeros(*((4, 8) if axis == 1 else (8,)), dtype=gamma_dtype)
    return ops.LayerNorm(axis, axis)(zeros(3, 4, 8), gamma, gamma)[0]


def rotary(cos_format=2, head_size=HEAD_SIZE, lengths=(2, 1), table_rows=20):
    tables = zeros(table_rows, head_size)
    return gen.ApplyRotaryPosEmb(cos_format)(zeros(3, 32), zeros(3, 16), tables, tables, int32(*lengths))[0]


def write_cache(slots=(0, 1, 2), width=16):
    cache, rows = zeros(4, 4, KV_HEADS, HEAD_SIZE), zeros(3, width)
    return gen.ReshapeAndCache()(rows, rows, cache, cache, int32(*slots))


def write_transposed_cache():
    cache, rows = mint.transpose(zeros(4, 4, KV_HEADS, HEAD_SIZE), 0, 1), zeros(1, 16)
    return gen.ReshapeAndCache()(rows, rows, cache, cache, int32(0))


def paged(contexts=(5, 2), lengths=None, block=0, scale=None, kv_heads=KV_HEADS):
    cache, tables = zeros(4, 4, KV_HEADS, HEAD_SIZE), Tensor(np.array([[0, 1], [2, block]], np.int32))
    op = gen.PagedAttention(HEADS, 1.0, kv_heads)
    query_lengths = None if lengths is None else int32(*lengths)
    return op(zeros(2, 32), cache, cache, tables, int32(*contexts), scale, scale, None, query_lengths)


def flash(layout="TH", ends=(2, 3), head_num=HEADS, shape=(3, 32), real_shift=None):
    op = gen.FlashAttentionScore(head_num=head_num, scale_value=1.0, input_layout=layout, sparse_mode=0)
    x, lengths = zeros(*shape), int64(*ends) if ends else None
    return op(x, x, x, real_shift, None, None, None, None, lengths, lengths)[3]


def grouped_matmul(ends=(1, 2, 3), bias=None):
    op = gen.GroupedMatmul(split_item=3, group_type=0)
    return op([zeros(3, 8)], [zeros(3, 8, 4)], bias, None, None, None, None, int64(*ends))[0]


def matrices(op, dtype, shape=(3, 3)):
    return op(zeros(*shape, dtype=dtype), zeros(*shape, dtype=dtype))


def gather(index):
    return ops.Gather()(zeros(3, 2), index, 0)


COMPLEX = zeros(3, dtype=mindspore.complex64)
FLOATS_ONLY = "is not served; cast to bfloat16, float16 or float32"

# The op, a call of it, and what the message must say.
REFUSED = [
    ("RmsNorm", lambda: rms_norm(float64), f"dtype float64 {FLOATS_ONLY}"),
    ("RmsNorm", lambda: rms_norm(bfloat16, float32), "one dtype, not bfloat16 and float32; cast one of them"),
    ("AddRmsNorm", lambda: add_rms_norm(float64), f"dtype float64 {FLOATS_ONLY}"),
    ("ApplyRotaryPosEmb", lambda: rotary(cos_format=0), "cos_format must be 2 (rotate half) or 3 (interleaved)"),
    ("ApplyRotaryPosEmb", lambda: rotary(head_size=12), "must be whole heads of cos's size"),
    ("ApplyRotaryPosEmb", lambda: rotary(lengths=(9, 1)), "lengths sum to 10, not T, 3"),
    ("ApplyRotaryPosEmb", lambda: rotary(table_rows=1), "sequence 0 has length 2, cos and sin have 1 rows"),
    ("ReshapeAndCache", lambda: write_cache(slots=(0, 1, 16)), "slot 16 of token 2 is outside the cache of 16"),
    ("ReshapeAndCache", lambda: write_cache(width=12), "must have a row of the cache's width for each slot"),
    ("ReshapeAndCache", write_transposed_cache, "key_cache must be contiguous, not a view"),
    ("PagedAttention", lambda: paged(contexts=(5, 0)), "sequence 1 has 1 queries but 0 tokens"),
    ("PagedAttention", lambda: paged(contexts=(5, 9)), "9 tokens, more than the 2 blocks of its table hold"),
    ("PagedAttention", lambda: paged(contexts=(5, 5), block=7), "is 7, but the cache has 4 blocks"),
    ("PagedAttention", lambda: paged(contexts=(5,)), "must have an entry for each row of block_tables"),
    ("PagedAttention", lambda: paged(lengths=(1,)), "must have an entry for each row of block_tables"),
    ("PagedAttention", lambda: paged(lengths=(2, 2)), "query_lens sum to more than T, 2"),
    ("PagedAttention", lambda: paged(kv_heads=4), "kv_head_num must be the caches' number of heads"),
    ("PagedAttention", lambda: paged(scale=zeros(2, 16, dtype=float16)), "antiquant_scale is not served, pass None"),
    ("FlashAttentionScore", lambda: flash("BSH", None, shape=(1, 3, 32)), "input_layout must be TH"),
    ("FlashAttentionScore", lambda: flash("TND", shape=(3, 4, 8)), "input_layout must be TH"),
    ("FlashAttentionScore", lambda: flash(ends=None), "TH needs actual_seq_qlen and actual_seq_kvlen"),
    ("FlashAttentionScore", lambda: flash(ends=(2, 5)), "sequence 1 has queries 2..5 of 3"),
    ("FlashAttentionScore", lambda: flash(ends=(1, 2)), "the last of query_ends is 2, not T, 3"),
    ("FlashAttentionScore", lambda: flash(head_num=5), "rows must be whole heads: check head_num"),
    ("FlashAttentionScore", lambda: flash(head_num=0), "rows must be whole heads: check head_num"),
    ("FlashAttentionScore", lambda: flash(real_shift=zeros(1, 1, 3, 3)), "real_shift is not served, pass None"),
    ("MatMul", lambda: matrices(ops.MatMul(), mindspore.int8), f"dtype int8 {FLOATS_ONLY}"),
    ("MatMul", lambda: matrices(ops.MatMul(), float64), f"dtype float64 {FLOATS_ONLY}"),
    ("MatMulExt", lambda: matrices(mint.matmul, float64), f"dtype float64 {FLOATS_ONLY}"),
    ("Dense", lambda: matrices(gen.Dense(), mindspore.int32), f"dtype int32 {FLOATS_ONLY}"),
    ("Dense", lambda: gen.Dense()(zeros(3, 3), zeros(3, 3), zeros(1)), "bias must have the size of w's first axis"),
    ("BatchMatMul", lambda: matrices(ops.BatchMatMul(), float64, (2, 3, 3)), f"dtype float64 {FLOATS_ONLY}"),
    ("GroupedMatmul", lambda: grouped_matmul(ends=(1, 2, 9)), "group_ends[2] is 9, not within 2..3"),
    ("GroupedMatmul", lambda: grouped_matmul(ends=(2, 1, 3)), "group_ends[1] is 1, not within 2..3"),
    ("GroupedMatmul", lambda: grouped_matmul(ends=(1, 3)), "group_list must have an entry for each weight"),
    ("GroupedMatmul", lambda: grouped_matmul(bias=[zeros(3, 4)]), "is not served, pass None"),
    ("Swiglu", lambda: gen.Swiglu()(zeros(4, 6), 0), "dim must be the last axis"),
    ("Swiglu", lambda: gen.Swiglu()(zeros(4, 6, dtype=mindspore.int32), -1), f"dtype int32 {FLOATS_ONLY}"),
    ("GeLU", lambda: ops.GeLU()(zeros(4, dtype=float64)), f"dtype float64 {FLOATS_ONLY}"),
    ("LayerNorm", lambda: layer_norm(axis=1), "begin_norm_axis and begin_params_axis must be the last axis"),
    ("LayerNorm", lambda: layer_norm(gamma_dtype=float16), "one dtype, not bfloat16 and float16; cast one of them"),
    ("SiLU", lambda: gen.SiLU()(zeros(4, dtype=mindspore.int32)), f"dtype int32 {FLOATS_ONLY}"),
    ("Add", lambda: ops.Add()(COMPLEX, COMPLEX), "dtype complex64 is not served"),
    ("Mul", lambda: ops.Mul()(COMPLEX, COMPLEX), "dtype complex64 is not served"),
    ("Cast", lambda: ops.cast(COMPLEX, float32), "dtype complex64 is not served"),
    ("Gather", lambda: gather(int32(0, 3)), "index 3 is outside an axis of 3"),
    ("Gather", lambda: gather(int64(-4)), "index -4 is outside an axis of 3"),
    ("Gather", lambda: gather(Tensor([1], mindspore.int16)), "indices must be int32 or int64"),
]

# What MindSpore refuses before it asks the plugin.
REFUSED_BY_MINDSPORE = [
    lambda: matrices(ops.Add(), bfloat16, (3,)) + zeros(4),
    lambda: ops.MatMul()(zeros(3, 3), zeros(3, 3, dtype=float16)),
    lambda: ops.MatMul()(zeros(3, 3), zeros(4, 3)),
    lambda: ops.BatchMatMul()(zeros(2, 3, 3), zeros(1, 3, 3)),
    lambda: gen.Swiglu()(zeros(4, 5), -1),
    lambda: ops.Reshape()(zeros(3, 2), (4, 2)),
    lambda: ops.Concat(0)((zeros(3, 2), zeros(3, 3))),
    lambda: ops.Split(0, 2)(zeros(3, 2))[0],
    lambda: gen.SplitWithSize()(zeros(3, 2), (1, 1), 0)[0],
    lambda: gen.PagedAttention(HEADS, 1.0, KV_HEADS, "INT8"),
    lambda: rotary_of(float32),
]


def rotary_of(dtype):
    tables = zeros(3, HEAD_SIZE, dtype=dtype)
    return gen.ApplyRotaryPosEmb(2)(zeros(3, 32, dtype=dtype), zeros(3, 16, dtype=dtype), tables, tables, int32(3))[0]


@pytest.fixture(autouse=True)
def synchronous_calls():
    """Else MindSpore may report an error again at the next call."""
    mindspore.set_context(mode=mindspore.PYNATIVE_MODE, pynative_synchronize=True)
    yield
    mindspore.set_context(pynative_synchronize=False)


@pytest.mark.parametrize("op, call, message", REFUSED, ids=[f"{op}-{message}" for op, _, message in REFUSED])
def test_refusal(library, capfd, op, call, message):
    with pytest.raises(RuntimeError):
        call().asnumpy()
    assert library.last_error.startswith(f"CPU op {op}: ")
    assert message in library.last_error
    assert capfd.readouterr().err.count(f"mindgen: {library.last_error}\n") == 1


def test_refusal_tells_what_came(library):
    with pytest.raises(RuntimeError):
        grouped_matmul(ends=(1, 3)).asnumpy()
    assert library.last_error.endswith("called with bfloat16 (3, 8), bfloat16 (3, 8, 4), int64 (2), bfloat16 (3, 4)")


class GathersRow(nn.Cell):
    def construct(self, x, index):
        return ops.gather(x, index, 0)


def test_refusal_in_a_graph(library):
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    x = Tensor(np.arange(6, dtype=np.float32).reshape(3, 2))
    with pytest.raises(RuntimeError):
        GathersRow()(x, int32(5)).asnumpy()
    assert library.last_error.startswith("CPU op Gather: gather: index 5 is outside an axis of 3")
    # MindSpore runs no graph again that has failed once; others work on.
    np.testing.assert_array_equal(GathersRow()(x, int32(2)).asnumpy(), [[4, 5]])


def test_nothing_is_written_when_a_slot_is_wrong():
    cache, rows = Tensor(np.zeros((4, 4, KV_HEADS, HEAD_SIZE)), bfloat16), Tensor(np.ones((3, 16)), bfloat16)
    with pytest.raises(RuntimeError):
        gen.ReshapeAndCache()(rows, rows, cache, cache, int32(0, 1, 16)).asnumpy()
    assert (cache.asnumpy() == 0).all()


@pytest.mark.parametrize("call", REFUSED_BY_MINDSPORE)
def test_refusal_by_mindspore(call):
    with pytest.raises((RuntimeError, TypeError, ValueError)):
        call().asnumpy()
