"""Slices of adapters: put together they are the whole, and their products make up the whole's."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindgen.adapters.formats.peft import LoraUpdate
from mindgen.adapters.registry import AdapterRegistry
from mindgen.adapters.slice_files import find_slices, read_slices, write_slices
from mindgen.adapters.slicing import join_updates, slice_update
from mindgen.errors import AdapterError
from mindgen.parallel.layout import Axis, Shard, TensorLayout
from mindgen.weights.mapped_tensor import MappedTensor


def random_update(in_features: int, out_features: int, rank: int, seed: int = 0) -> LoraUpdate:
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((rank, in_features)), generator.standard_normal((out_features, rank))
    return LoraUpdate(*(MappedTensor("float32", half.astype(np.float32)) for half in (a, b)), scaling=0.7)


KINDS = ("column", "row", "replicated")


def weight_layout(kind: str, split: int, other: int, unit: int, num_ranks: int) -> TensorLayout:
    shard = Shard(num_ranks)
    if kind == "column":
        return shard.layout(shard.split(split, unit), Axis(other))
    if kind == "row":
        return shard.layout(Axis(other), shard.split(split, unit))
    return shard.layout(Axis(split), Axis(other))


@given(
    units=st.integers(1, 40), unit=st.integers(1, 8), num_ranks=st.integers(1, 9), other=st.integers(1, 20),
    rank=st.integers(1, 9), kind=st.sampled_from(KINDS),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_slices_make_up_the_whole(units, unit, num_ranks, other, rank, kind):
    """Also where neither units nor ranks divide: for x W^T, every rank's product is its part, or adds up to it."""
    split = units * unit
    layout = weight_layout(kind, split, other, unit, num_ranks)
    update = random_update(layout.shape[1], layout.shape[0], rank)
    parts = [slice_update(update, layout, index) for index in range(num_ranks)]
    assert len({(part.a.shape, part.b.shape) for part in parts}) == 1  # one graph serves all ranks
    whole = join_updates(parts, layout)
    np.testing.assert_array_equal(whole.a.data, update.a.data)
    np.testing.assert_array_equal(whole.b.data, update.b.data)

    x = np.random.default_rng(1).standard_normal((5, layout.shape[1]))
    expected = 0.7 * (x @ update.a.data.T.astype(np.float64)) @ update.b.data.T
    x_layout = TensorLayout(num_ranks, (Axis(5), layout.axes[1]))
    products = [
        part.scaling * (x_layout.cut(x, index) @ part.a.data.T.astype(np.float64)) @ part.b.data.T
        for index, part in enumerate(parts)
    ]
    if kind == "column":
        np.testing.assert_allclose(np.concatenate(products, 1)[:, :split], expected, atol=1e-12)
    elif kind == "row":
        np.testing.assert_allclose(sum(products), expected, atol=1e-12)
    else:
        np.testing.assert_array_equal(products[0], expected)


LAYOUTS = {
    "model.layers.0.self_attn.q_proj": weight_layout("column", 28, 28, 4, 3),
    "model.layers.0.self_attn.o_proj": weight_layout("row", 28, 28, 4, 3),
}


@pytest.mark.parametrize("place", ["slora", "."])
def test_files(place, tmp_path):
    registry = AdapterRegistry({"first": tmp_path, "second": tmp_path / "second"})
    assert find_slices(registry) is None
    folder = tmp_path / place
    updates = {module: random_update(28, 28, 3, seed) for seed, module in enumerate(LAYOUTS)}
    paths = write_slices(folder, "law/../A1", "digest", updates, LAYOUTS)
    assert [path.parent for path in paths] == [folder / f"rank_{rank}" for rank in range(3)]
    assert find_slices(registry) == folder
    parts = [read_slices(folder, "law/../A1", "digest", 3, rank) for rank in range(3)]
    for module, layout in LAYOUTS.items():
        whole = join_updates([part[module] for part in parts], layout)
        assert whole.scaling == updates[module].scaling
        np.testing.assert_array_equal(whole.a.data, updates[module].a.data)
        np.testing.assert_array_equal(whole.b.data, updates[module].b.data)
    with pytest.raises(AdapterError, match="was made for digest digest, not other; slice the adapter again"):
        read_slices(folder, "law/../A1", "other", 3, 0)
    with pytest.raises(AdapterError, match="was made for num_ranks 3, not 2"):
        read_slices(folder, "law/../A1", "digest", 2, 0)
    with pytest.raises(AdapterError, match="has no slices for rank 3"):
        read_slices(folder, "law/../A1", "digest", 3, 3)


def test_slices_of_unknown_modules(tmp_path):
    with pytest.raises(AdapterError, match="the model has no layout for mlp"):
        write_slices(tmp_path, "A1", "digest", {"mlp": random_update(4, 4, 1)}, LAYOUTS)
