"""Paged and flash attention against float64."""

import numpy as np
import pytest
from attention_reference import assert_close, causal_attention
from buffers import DTYPES, empty_buffer, from_buffer, random_buffer
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.errors import KernelError


class Batch:
    """Sequences of (context, queries) tokens, with their keys and values both end to end and in shuffled blocks."""

    def __init__(self, sequences, heads=(4, 2), head_size=16, block_size=16, dtype="float32", scale=None, spread=1.0):
        rng = np.random.default_rng(0)
        self.sequences, self.dtype, self.block_size = sequences, dtype, block_size
        self.query_heads, self.kv_heads = heads
        self.head_size, self.scale = head_size, head_size**-0.5 if scale is None else scale
        self.contexts = np.array([context for context, _ in sequences], np.int32)
        self.query_lens = np.array([queries for _, queries in sequences], np.int32)
        tokens, self.num_queries = int(self.contexts.sum()), int(self.query_lens.sum())
        self.query = random_buffer(rng, (self.num_queries, self.query_heads, head_size), dtype, spread)
        self.key = random_buffer(rng, (tokens, self.kv_heads, head_size), dtype, spread)
        self.value = random_buffer(rng, (tokens, self.kv_heads, head_size), dtype)
        self._fill_caches(rng)

    def _fill_caches(self, rng):
        needed = -(-self.contexts // self.block_size)
        self.num_blocks = int(needed.sum()) + 3
        shape = (self.num_blocks, self.block_size, self.kv_heads, self.head_size)
        self.key_cache, self.value_cache = empty_buffer(shape, self.dtype), empty_buffer(shape, self.dtype)
        self.block_tables = np.full((len(needed), max(needed, default=0) + 2), -1, np.int32)
        self.block_tables[:, -1] = 2**31 - 1
        free = rng.permutation(self.num_blocks).astype(np.int32)
        starts = np.cumsum(self.contexts) - self.contexts
        for table, count, start, context in zip(self.block_tables, needed, starts, self.contexts, strict=True):
            table[:count], free = free[:count], free[count:]
            positions = np.arange(context)
            slots = table[positions // self.block_size], positions % self.block_size
            self.key_cache[slots] = self.key[start : start + context]
            self.value_cache[slots] = self.value[start : start + context]

    def paged(self, kernels, **changes):
        arguments = {
            "block_tables": self.block_tables, "contexts": self.contexts, "query_lens": self.query_lens,
            "num_queries": self.num_queries, "num_blocks": self.num_blocks, "block_size": self.block_size,
            "query_heads": self.query_heads, "dtype": DTYPES[self.dtype],
        } | changes  # fmt: skip
        self.y = y = self._empty_output(kernels)
        tables = arguments["block_tables"]
        kernels.call(
            "paged_attention", self.query, self.key_cache, self.value_cache, tables, arguments["contexts"],
            arguments["query_lens"], y, arguments["num_queries"], len(tables), tables.shape[1],
            arguments["num_blocks"], arguments["block_size"], arguments["query_heads"], self.kv_heads,
            self.head_size, self.scale, arguments["dtype"],
        )  # fmt: skip
        return y

    def flash(self, kernels, query_ends=None, kv_ends=None):
        query_ends = np.cumsum(self.query_lens, dtype=np.int64) if query_ends is None else query_ends
        kv_ends = np.cumsum(self.contexts, dtype=np.int64) if kv_ends is None else kv_ends
        self.y = y = self._empty_output(kernels)
        kernels.call(
            "flash_attention", self.query, self.key, self.value, query_ends, kv_ends, y, self.num_queries,
            len(self.key), len(kv_ends), self.query_heads, self.kv_heads, self.head_size, self.scale,
            DTYPES[self.dtype],
        )  # fmt: skip
        return y

    def _empty_output(self, kernels):
        multiplies_pairs = kernels.instruction_set in ("avx512", "amx") or kernels.version == "emulated"
        self.rounds_weights = self.dtype == "bfloat16" and multiplies_pairs
        return empty_buffer(self.query.shape, self.dtype)

    def check(self, y):
        query, key, value = (from_buffer(buffer, self.dtype) for buffer in (self.query, self.key, self.value))
        first_query = first_key = 0
        for context, queries in self.sequences:
            here, keys = slice(first_query, first_query + queries), slice(first_key, first_key + context)
            if queries:
                expected = causal_attention(query[here], key[keys], value[keys], self.scale, self.rounds_weights)
                assert_close(y[here], *expected, self.dtype)
            first_query, first_key = here.stop, keys.stop


MIXED = [(1, 1), (37, 1), (300, 40), (64, 64), (130, 3), (5, 5), (129, 1)]


def check_both(kernels, batch):
    batch.check(batch.paged(kernels))
    batch.check(batch.flash(kernels))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_size", [8, 24, 40, 64, 80, 128, 256])
def test_head_sizes(kernels, head_size, dtype):
    check_both(kernels, Batch(MIXED, (4, 2), head_size, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [(1, 1), (7, 1), (14, 2), (3, 3), (40, 40), (42, 14), (8, 1), (9, 1), (71, 1)])
def test_query_heads_per_kv_head(kernels, heads, dtype):
    check_both(kernels, Batch(MIXED, heads, 24, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_prompts_of_several_tiles(kernels, dtype):
    check_both(kernels, Batch([(230, 230), (700, 150), (129, 128)], (14, 2), 24, dtype=dtype))


@pytest.mark.parametrize("block_size", [1, 8, 16, 32, 128])
def test_block_sizes(kernels, block_size):
    batch = Batch(MIXED, block_size=block_size, dtype="bfloat16")
    batch.check(batch.paged(kernels))


@pytest.mark.parametrize("context", [1, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1024, 1300])
@pytest.mark.parametrize("heads", [(2, 2), (9, 1)])  # few rows, and more
def test_decode_contexts(kernels, context, heads):
    batch = Batch([(context, 1)], heads, dtype="bfloat16")
    y = batch.paged(kernels)
    batch.check(y)
    np.testing.assert_array_equal(batch.paged(kernels, query_lens=None), y)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_batch(library, data):
    lengths = st.integers(0, 150).flatmap(lambda context: st.tuples(st.just(context), st.integers(0, context)))
    sequences = data.draw(st.lists(lengths, min_size=1, max_size=5))
    kv_heads, group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9))
    block_size, dtype = data.draw(st.sampled_from([8, 16, 32])), data.draw(st.sampled_from(sorted(DTYPES)))
    head_size = data.draw(st.integers(1, 70))
    check_both(library, Batch(sequences, (kv_heads * group, kv_heads), head_size, block_size, dtype))


def test_several_queries_over_a_long_context(kernels):
    """More keys than one chunk, some of whose chunks the first queries do not see."""
    check_both(kernels, Batch([(1030, 10), (513, 2), (2000, 8)], (4, 2)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_scores_do_not_overflow(kernels, dtype):
    check_both(kernels, Batch(MIXED, dtype=dtype, spread=30.0, scale=1.0))


def test_scale_of_any_sign(kernels):
    check_both(kernels, Batch(MIXED, scale=-0.3))
    check_both(kernels, Batch(MIXED, scale=0.0))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sequences", [[*MIXED, (1500, 1)], [(1500, 1)], [(1100, 3), (600, 1)]])
def test_threads_do_not_change_a_bit(kernels, sequences, dtype):
    """Nor does sharing out the keys of few long sequences, which one thread does not do."""
    batch = Batch(sequences, head_size=40, dtype=dtype)
    results = []
    for num_threads in (1, 2):
        kernels.num_threads = num_threads
        results.append((batch.paged(kernels), batch.flash(kernels)))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])


@pytest.mark.parametrize("heads", [(7, 1), (18, 2)])
def test_company_does_not_change_a_bit(kernels, heads):
    batch = Batch([*MIXED, (1500, 1)], heads, head_size=40, dtype="bfloat16")
    together = batch.paged(kernels)
    ends = np.cumsum(batch.query_lens)
    whole = batch.query
    for i, (end, queries) in enumerate(zip(ends, batch.query_lens, strict=True)):
        batch.query = np.ascontiguousarray(whole[end - queries : end])
        alone = batch.paged(
            kernels,
            block_tables=batch.block_tables[i : i + 1],
            contexts=batch.contexts[i : i + 1],
            query_lens=batch.query_lens[i : i + 1],
            num_queries=queries,
        )
        np.testing.assert_array_equal(alone, together[end - queries : end])


def test_paged_is_flash_on_whole_prompts(kernels):
    batch = Batch([(length, length) for length in (1, 70, 129, 600)], (14, 2), 64)
    np.testing.assert_array_equal(batch.paged(kernels), batch.flash(kernels))


def test_nothing_to_do(kernels):
    batch = Batch([])
    assert batch.paged(kernels).size == batch.flash(kernels).size == 0


def changed(array, index, value):
    result = array.copy()
    result[index] = value
    return result


BAD_PAGED = {
    "query_lens sum to 115": lambda batch: {"num_queries": batch.num_queries + 1},
    "query_lens sum to more than T": lambda batch: {"num_queries": batch.num_queries - 1},
    "sequence 0 has 2 queries but 1 tokens": lambda batch: {"query_lens": changed(batch.query_lens, 0, 2)},
    "sequence 1 has -1 queries": lambda batch: {"query_lens": changed(batch.query_lens, 1, -1)},
    "block 2 of sequence 1 is -1": lambda batch: {"block_tables": changed(batch.block_tables, (1, 2), -1)},
    "block 0 of sequence 0 is 9, but the cache has 9": lambda batch: {
        "num_blocks": 9,
        "block_tables": np.full((7, 40), 9, np.int32),
    },
    "340 tokens, more than the 21 blocks": lambda batch: {"contexts": changed(batch.contexts, 1, 340)},
    "multiple of the key/value heads": lambda batch: {"query_heads": 5},
    "block_size 0": lambda batch: {"block_size": 0},
    "dtype": lambda batch: {"dtype": 4},
}


@pytest.mark.parametrize("message", BAD_PAGED)
def test_bad_paged_arguments(library, message):
    batch = Batch(MIXED)
    with pytest.raises(KernelError, match=message):
        batch.paged(library, **BAD_PAGED[message](batch))
    assert np.isnan(batch.y).all()


@pytest.mark.parametrize(
    "query_ends, kv_ends, message",
    [
        ([3, 2], [3, 4], "sequence 1 has queries 3..2"),
        ([3, 4], [2, 4], "sequence 0 has queries 0..3 of 4 and keys 0..2 of 4"),
        ([3, 4], [3, 5], "keys 3..5 of 4"),
        ([3, 3], [3, 4], "the last of query_ends is 3, not T, 4"),
    ],
)
def test_bad_flash_arguments(library, query_ends, kv_ends, message):
    batch = Batch([(3, 3), (1, 1)])
    with pytest.raises(KernelError, match=message):
        batch.flash(library, np.array(query_ends), np.array(kv_ends))
    assert np.isnan(batch.y).all()
