"""The declared layouts: slices that make up the whole, in MindSpore's notation, heads with the heads they attend to."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.errors import ModelError
from mindgen.parallel.layout import Axis, Shard


def test_mindspore_notation():
    shard = Shard(4)
    column = shard.layout(shard.split(16), Axis(6))
    row = shard.layout(Axis(6), shard.split(16))
    assert (column.device_matrix, column.tensor_map, column.strategy) == ((4,), (0, -1), (4, 1))
    assert (row.device_matrix, row.tensor_map, row.slice_shape) == ((4,), (-1, 0), (6, 4))
    whole = shard.layout(Axis(6))
    assert (whole.device_matrix, whole.tensor_map, whole.strategy) == ((4,), (-1,), (1,))
    queries, keys = shard.split_heads(8, 2, 3)  # two ranks for each KV head
    assert shard.layout(queries).device_matrix == shard.layout(keys).device_matrix == (2, 2)
    assert (shard.layout(queries).tensor_map, shard.layout(keys).tensor_map) == (((1, 0),), (1,))
    assert (shard.layout(queries).strategy, shard.layout(keys).strategy) == ((4,), (2,))


def test_padding_rule():
    """7 heads of 4 features on 3 ranks: room for 3 heads each; the last has one, and zeros."""
    axis = Shard(3).split(28, unit=4)
    assert [(part.start, part.stop, part.size) for part in map(axis.slice_of, range(3))] == [
        (0, 12, 12), (12, 24, 12), (24, 28, 12)
    ]  # fmt: skip
    last = Shard(4).split(2).slice_of(3)
    assert (last.start, last.stop, last.size) == (2, 2, 1)
    with pytest.raises(ModelError, match="do not divide into units"):
        Shard(2).split(10, unit=4)


@given(num_kv_heads=st.integers(1, 6), group=st.integers(1, 5), num_ranks=st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_query_heads_stay_with_their_kv_heads(num_kv_heads, group, num_ranks):
    """Every rank attends as if its heads were a model of their own, and all query heads are there once."""
    size, shard = 2, Shard(num_ranks)
    queries, keys = shard.split_heads(num_kv_heads * group, num_kv_heads, size)
    local_heads, local_kv_heads = queries.slice_size // size, keys.slice_size // size
    assert local_heads % local_kv_heads == 0
    seen = []
    for rank in range(num_ranks):
        query, key = queries.slice_of(rank), keys.slice_of(rank)
        assert query.start % size == query.stop % size == key.start % size == 0
        for place, head in enumerate(range(query.start // size, query.stop // size)):
            kv_head = key.start // size + place // (local_heads // local_kv_heads)
            assert kv_head < key.stop // size and kv_head == head // group
            seen.append(head)
    assert seen == list(range(num_kv_heads * group))


@given(size=st.integers(1, 60), num_ranks=st.integers(1, 9))
@settings(max_examples=100, deadline=None)
def test_cut_and_join(size, num_ranks):
    shard = Shard(num_ranks)
    layout = shard.layout(Axis(3), shard.split(size))
    whole = np.random.default_rng(size).standard_normal((3, size))
    parts = [layout.cut(whole, rank) for rank in range(num_ranks)]
    assert {part.shape for part in parts} == {layout.slice_shape}
    np.testing.assert_array_equal(layout.join(parts), whole)
    queries, keys = shard.split_heads(12, 2, size)
    for axis in (queries, keys):
        heads = np.random.default_rng(size).standard_normal(axis.size)
        layout = shard.layout(axis)
        np.testing.assert_array_equal(layout.join([layout.cut(heads, rank) for rank in range(num_ranks)]), heads)
