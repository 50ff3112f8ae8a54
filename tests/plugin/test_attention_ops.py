"""Paged and flash attention over the KV cache, in the call patterns of MindFormers' inference networks."""

import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from mindspore.ops import auto_generate as gen
from op_calls import EPSILON, assert_close, float64, int32, int64, random_tensor, run, tensor

from mindgen.layers.inference_ops import inference_ops

HEADS, KV_HEADS, HEAD_SIZE = 4, 2, 16
SCALE = 0.3
BLOCKS, BLOCK_SIZE = 12, 4
MAX_LENGTH = 20
CACHE_SHAPE = (BLOCKS, BLOCK_SIZE, KV_HEADS, HEAD_SIZE)


def causal_attention(query, key, value, dtype):
    """The last len(query) tokens over all: query (q, Hq, D), key and value (c, Hkv, D).

    Returns y (q, Hq*D) and the error of a float32 computation of it, with bfloat16 of one whose weights are rounded.
    """
    key, value = (np.repeat(x, HEADS // KV_HEADS, axis=1) for x in (key, value))
    scores = SCALE * np.einsum("qhd,khd->hqk", query, key)
    magnitudes = SCALE * np.einsum("qhd,khd->hqk", abs(query), abs(key))
    hidden = np.triu(np.ones((len(query), len(key)), bool), len(key) - len(query) + 1)
    scores[:, hidden], magnitudes[:, hidden] = -np.inf, 0
    probabilities = np.exp(scores - scores.max(axis=-1, keepdims=True))
    probabilities /= probabilities.sum(axis=-1, keepdims=True)
    y = np.einsum("hqk,khd->qhd", probabilities, value)
    # An error of a score is a relative error of its probability, in numerator and denominator.
    score_error = 2 * (HEAD_SIZE + 4) * magnitudes.max(axis=-1).T[:, :, None]
    weighted = np.einsum("hqk,khd->qhd", probabilities, abs(value))
    weight_error = EPSILON[dtype] / 2 if dtype == "bfloat16" else 0
    error = (EPSILON["float32"] * (score_error + len(key) + 16) + weight_error) * weighted
    return y.reshape(len(query), -1), error.reshape(len(query), -1)


def attention_of_batch(queries, keys, values, dtype):
    """Of sequences laid end to end; each argument has one array per sequence."""
    parts = [causal_attention(*sequence, dtype) for sequence in zip(queries, keys, values, strict=True)]
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def split_heads(x, lengths):
    """(T, heads*D) to one (length, heads, D) per sequence."""
    return np.split(x.reshape(len(x), -1, HEAD_SIZE), np.cumsum(lengths)[:-1])


def mask_rows(contexts, lengths, dtype):
    """The rows of the strict upper triangle times -10000 at the positions of the tokens."""
    positions = np.concatenate([np.arange(c - n, c) for c, n in zip(contexts, lengths, strict=True)])
    return tensor(np.triu(np.full((MAX_LENGTH, MAX_LENGTH), -10000.0), 1)[positions], dtype)


class PagedAttentions(nn.Cell):
    def __init__(self):
        super().__init__()
        self.paged_attention = gen.PagedAttention(HEADS, SCALE, KV_HEADS)

    def construct(self, query, query_3d, key_cache, value_cache, tables, contexts, lengths, mask):
        caches = (key_cache, value_cache)
        return (
            self.paged_attention(query, *caches, tables, contexts, None, None, None, lengths),
            self.paged_attention(query, *caches, tables, contexts, None, None, mask, lengths),
            self.paged_attention(query_3d, *caches, tables, contexts, None, None, mask, lengths),
        )


class DecodeAttentions(PagedAttentions):
    def construct(self, query, query_3d, key_cache, value_cache, tables, contexts):
        caches = (key_cache, value_cache)
        return (
            self.paged_attention(query, *caches, tables, contexts),
            self.paged_attention(query_3d, *caches, tables, contexts),
        )


def paged_call(rng, caches, contexts, lengths, dtype):
    """The inputs of PagedAttentions, with blocks in no order."""
    tokens, width = sum(lengths), HEADS * HEAD_SIZE
    query = rng.standard_normal((tokens, width))
    blocks_each = -(-max(contexts) // BLOCK_SIZE)
    tables = rng.permutation(BLOCKS)[: len(contexts) * blocks_each].reshape(len(contexts), blocks_each)
    return (
        tensor(query, dtype), tensor(query.reshape(tokens, 1, width), dtype), *caches,
        Tensor(tables.astype(np.int32)), int32(*contexts), int32(*lengths), mask_rows(contexts, lengths, dtype),
    )  # fmt: skip


def assert_paged_attention(call, outputs, contexts, lengths, dtype):
    query, _, key_cache, value_cache, tables = (float64(x) for x in call[:5])
    keys, values = (
        [
            cache[table].reshape(-1, KV_HEADS, HEAD_SIZE)[:c]
            for table, c in zip(tables.astype(int), contexts, strict=True)
        ]
        for cache in (key_cache, value_cache)
    )
    expected, error = attention_of_batch(split_heads(query, lengths), keys, values, dtype)
    for y in outputs:
        assert_close(y.reshape(expected.shape), expected, error, dtype)


# The tokens of each sequence, and how many of them are new.
BATCHES = [((9, 3), (1, 3)), ((7, 16, 1), (7, 2, 1))]
DECODING_BATCHES = [((9, 3), (1, 1)), ((7, 16, 1), (1, 1, 1))]


@pytest.fixture
def caches(half_dtype):
    rng = np.random.default_rng(1)
    return [random_tensor(rng, CACHE_SHAPE, half_dtype) for _ in range(2)]


def test_paged_attention(mode, half_dtype, caches):
    rng = np.random.default_rng(0)
    calls = [paged_call(rng, caches, *batch, half_dtype) for batch in BATCHES]
    for call, outputs, batch in zip(calls, run(mode, PagedAttentions(), *calls), BATCHES, strict=True):
        assert_paged_attention(call, outputs, *batch, half_dtype)


def test_paged_attention_without_query_lengths(mode, half_dtype, caches):
    rng = np.random.default_rng(0)
    calls = [paged_call(rng, caches, *batch, half_dtype)[:6] for batch in DECODING_BATCHES]
    for call, outputs, batch in zip(calls, run(mode, DecodeAttentions(), *calls), DECODING_BATCHES, strict=True):
        assert_paged_attention(call, outputs, *batch, half_dtype)


class FlashAttentions(nn.Cell):
    def __init__(self):
        super().__init__()
        self.flash_attention = gen.FlashAttentionScore(
            head_num=HEADS, scale_value=SCALE, input_layout="TH", sparse_mode=0
        )

    def construct(self, query, key, value, mask, ends):
        return (
            self.flash_attention(query, key, value, None, None, None, mask, None, ends, ends)[3],
            self.flash_attention(query, key, value, None, None, None, None, None, ends, ends)[3],
        )


def test_flash_attention(mode, dtype):
    rng = np.random.default_rng(0)
    mask = tensor(np.triu(np.full((128, 128), -10000.0 if dtype == "float16" else 1.0), 1), dtype)
    batches = [(3, 4), (1, 40)]
    calls = [
        [
            *(random_tensor(rng, (sum(lengths), heads * HEAD_SIZE), dtype) for heads in (HEADS, KV_HEADS, KV_HEADS)),
            mask,
            int64(*np.cumsum(lengths)),
        ]
        for lengths in batches
    ]
    for call, outputs, lengths in zip(calls, run(mode, FlashAttentions(), *calls), batches, strict=True):
        expected, error = attention_of_batch(*(split_heads(float64(x), lengths) for x in call[:3]), dtype)
        for y in outputs:
            assert_close(y, expected, error, dtype)


class CachedAttention(nn.Cell):
    """Writes keys and values into a cache of its own, then attends to it."""

    def __init__(self, dtype):
        super().__init__()
        served = inference_ops(HEADS, KV_HEADS, SCALE, dtype)
        self.reshape_and_cache = served.reshape_and_cache
        self.paged_attention = served.paged_attention
        self.depend = ops.Depend()
        self.key_cache = Parameter(tensor(np.full(CACHE_SHAPE, 7.0), dtype), name="key_cache")
        self.value_cache = Parameter(tensor(np.full(CACHE_SHAPE, 7.0), dtype), name="value_cache")

    def construct(self, query, key, value, slots, tables, contexts, lengths):
        written = self.reshape_and_cache(key, value, self.key_cache, self.value_cache, slots)
        query = self.depend(query, written)
        return self.paged_attention(
            query, self.key_cache, self.value_cache, tables, contexts, None, None, None, lengths
        )


TABLES = np.array([[5, 0, 9], [2, 11, 4]], np.int32)


def cached_calls(rng, num_new_tokens, dtype):
    """The steps of two sequences that grow by num_new_tokens each time."""
    calls, length = [], 0
    for count in num_new_tokens:
        positions = np.arange(length, length + count)
        slots = TABLES[:, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
        length += count
        rows = [(2 * count, heads * HEAD_SIZE) for heads in (HEADS, KV_HEADS, KV_HEADS)]
        calls.append(
            [*(random_tensor(rng, shape, dtype) for shape in rows), int32(*slots.flat), Tensor(TABLES),
             int32(length, length), int32(count, count)]
        )  # fmt: skip
    return calls


def assert_grows(calls, all_outputs, dtype):
    """Each call sees the keys and values of those before it."""
    past = [[np.zeros((0, KV_HEADS, HEAD_SIZE))] * 2 for _ in range(2)]
    for call, y in zip(calls, all_outputs, strict=True):
        lengths = call[6].asnumpy()
        query, key, value = (split_heads(float64(x), lengths) for x in call[:3])
        keys, values = past = [
            [np.concatenate(pair) for pair in zip(old, new, strict=True)]
            for old, new in zip(past, (key, value), strict=True)
        ]
        expected, error = attention_of_batch(query, keys, values, dtype)
        assert_close(y, expected, error, dtype)


def test_attention_sees_what_was_written(mode, half_dtype):
    calls = cached_calls(np.random.default_rng(0), (5, 1, 3), half_dtype)
    assert_grows(calls, run(mode, CachedAttention(half_dtype), *calls), half_dtype)


def test_float32_stand_ins():
    calls = cached_calls(np.random.default_rng(0), (5, 1, 3), "float32")
    assert_grows(calls, run("static graph", CachedAttention("float32"), *calls), "float32")


class Writes(nn.Cell):
    def __init__(self, key_cache, value_cache):
        super().__init__()
        self.reshape_and_cache = gen.ReshapeAndCache()
        self.key_cache = key_cache
        self.value_cache = value_cache

    def construct(self, key, value, slots):
        return self.reshape_and_cache(key, value, self.key_cache, self.value_cache, slots)


@pytest.mark.parametrize("shape", [(-1, KV_HEADS * HEAD_SIZE), (-1, 1, KV_HEADS * HEAD_SIZE)], ids=["2-D", "3-D"])
def test_cache_changes_only_where_written(mode, half_dtype, shape, caches):
    before = [cache.asnumpy().copy().reshape(-1, KV_HEADS * HEAD_SIZE) for cache in caches]
    parameters = [Parameter(cache, name=name) for cache, name in zip(caches, ("key", "value"), strict=True)]
    rng = np.random.default_rng(0)
    slots = [(3, 47, -1, 0), (8, 9)]
    calls = [
        [*(tensor(rng.standard_normal((len(s), 32)).reshape(shape), half_dtype) for _ in range(2)), int32(*s)]
        for s in slots
    ]
    run(mode, Writes(*parameters), *calls)
    for i, (parameter, expected) in enumerate(zip(parameters, before, strict=True)):
        for call, s in zip(calls, slots, strict=True):
            rows = call[i].asnumpy().reshape(len(s), -1)
            for row, slot in zip(rows, s, strict=True):
                if slot >= 0:
                    expected[slot] = row
        np.testing.assert_array_equal(parameter.asnumpy().reshape(expected.shape), expected)
