"""The executor alone: what it fuses and how it shares memory, against numpy; and what it refuses."""

import numpy as np
import pytest
from graphs import Graph, tensor_type

from mindgen.kernels.library import DType, KernelLibrary

F32 = DType.FLOAT32
K, N = 24, 20


@pytest.fixture(params=[True, False], ids=["fused", "unfused"])
def fuse(request):
    return request.param


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def rows(columns: int):
    return tensor_type(F32, -1, columns)


def linear(graph: Graph, x: int, w: int, columns: int) -> int:
    return graph.node("MatMul", x, w, [False], [True], outputs=[rows(columns)])


def norm(values: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    return values / np.sqrt((values.astype(np.float64) ** 2).mean(-1, keepdims=True) + 1e-6) * gamma


def test_bias_residual_and_norm(library: KernelLibrary, fuse):
    graph = Graph(library, fuse)
    x, w, bias, residual = graph.input(F32, -1, K), graph.input(F32, N, K), graph.input(F32, N), graph.input(F32, -1, N)
    gamma = graph.input(F32, N)
    y = graph.node("Add", linear(graph, x, w, N), bias, outputs=[rows(N)])
    normed = graph.node("AddRmsNorm", y, residual, gamma, [1e-6], outputs=[rows(N), rows(1), rows(N)])
    graph.compile(normed, normed + 2)
    assert graph.kernels()[: 2 if fuse else 3] == (["Linear", "RmsNorm"] if fuse else ["MatMul", "Add", "AddRmsNorm"])
    rng = np.random.default_rng(0)
    for count in (1, 5, 40, 3, 0):
        a = [random(rng, count, K), random(rng, N, K), random(rng, N), random(rng, count, N), random(rng, N)]
        y, total = graph.run(*a)
        expected = a[0] @ a[1].T + a[2] + a[3]
        np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(y, norm(expected, a[4]), rtol=1e-4, atol=1e-4)
    graph.close()


def test_residual_behind_lora(library: KernelLibrary, fuse):
    """As in networks that keep the sum: x + (linear(y) + LoRA), normalized and activated."""
    graph = Graph(library, fuse)
    x, w, bias, residual = graph.input(F32, -1, K), graph.input(F32, N, K), graph.input(F32, N), graph.input(F32, -1, N)
    a, b, ends = graph.input(F32, 2, K, 4), graph.input(F32, 2, 4, N), graph.input(DType.INT64, 2)
    gamma, beta = graph.input(F32, N), graph.input(F32, N)
    y = graph.node("Add", linear(graph, x, w, N), bias, outputs=[rows(N)])
    nothing, flags = [[None]] * 5, ([3], [0], [False], [False])
    low = graph.node("GroupedMatmul", x, a, *nothing, ends, *flags, outputs=[rows(4)])
    delta = graph.node("GroupedMatmul", low, b, *nothing, ends, *flags, outputs=[rows(N)])
    y = graph.node("Add", y, delta, outputs=[rows(N)])
    total = graph.node("Add", residual, y, outputs=[rows(N)])
    shapes = [rows(N), rows(1), rows(1)]
    normed = graph.node("LayerNorm", total, gamma, beta, [-1], [-1], [1e-5], outputs=shapes)
    graph.compile(total, graph.node("GeLU", normed, outputs=[rows(N)]))
    if fuse:
        assert graph.kernels() == [
            "Linear",
            "AddLora",
            "Add",
            "LayerNorm",
            "GeLU",
        ]  # the update comes before the residual
    rng = np.random.default_rng(0)
    for count in (5, 1, 40, 0):
        arrays = [random(rng, *shape) for shape in ((count, K), (N, K), (N,), (count, N), (2, K, 4), (2, 4, N))]
        lengths, scales = np.array([count // 2, count]), [random(rng, N), random(rng, N)]
        found, activated = graph.run(*arrays, lengths, *scales)
        each = [array.astype(np.float64) for array in arrays]
        expected = each[0] @ each[1].T + each[2] + each[3]
        for slot, part in enumerate((slice(0, count // 2), slice(count // 2, count))):
            expected[part] += each[0][part] @ each[4][slot] @ each[5][slot]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)
        centred = expected - expected.mean(-1, keepdims=True)
        z = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scales[0] + scales[1]
        gelu = z / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))
        np.testing.assert_allclose(activated, gelu, rtol=1e-4, atol=1e-4)
    graph.close()


def test_swiglu(library: KernelLibrary, fuse):
    graph = Graph(library, fuse)
    x, w = graph.input(F32, -1, K), graph.input(F32, 2 * N, K)
    y = graph.node("Swiglu", linear(graph, x, w, 2 * N), [-1], outputs=[rows(N)])
    graph.compile(y)
    assert graph.kernels() == (["LinearSwiglu"] if fuse else ["MatMul", "Swiglu"])
    rng = np.random.default_rng(1)
    for count in (4, 33):
        a, b = random(rng, count, K), random(rng, 2 * N, K)
        gate, up = np.split((a @ b.T).astype(np.float64), 2, axis=1)
        np.testing.assert_allclose(graph.run(a, b)[0], gate / (1 + np.exp(-gate)) * up, rtol=1e-4, atol=1e-4)
    graph.close()


def test_parts_follow_each_other_in_the_outputs(library: KernelLibrary, fuse):
    graph = Graph(library, fuse)
    x, w, gamma = graph.input(F32, -1, K), graph.input(F32, N, K), graph.input(F32, N)
    y = linear(graph, x, w, N)
    normed = graph.node("RmsNorm", y, gamma, [1e-6], outputs=[rows(N), rows(1)])
    graph.compile(normed, y)
    rng = np.random.default_rng(2)
    weights = [random(rng, N, K), random(rng, N)]
    for counts in ((3, 5), (4, 0, 40), (7,), (20, 1)):
        xs = [random(rng, count, K) for count in counts]
        normed, y = graph.run_parts([[x, *weights] for x in xs])
        expected = np.concatenate(xs) @ weights[0].T
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(normed, norm(expected, weights[1]), rtol=1e-4, atol=1e-4)
    graph.close()


def test_cast_to_float32(library: KernelLibrary, fuse):
    graph = Graph(library, fuse)
    half = DType.FLOAT16
    x, w = graph.input(half, -1, K), graph.input(half, N, K)
    product = graph.node("MatMul", x, w, [False], [True], outputs=[tensor_type(half, -1, N)])
    graph.compile(graph.node("Cast", product, [43], outputs=[rows(N)]))
    assert graph.kernels() == (["Linear"] if fuse else ["MatMul", "Cast"])
    rng = np.random.default_rng(3)
    for count in (1, 33):
        a, b = random(rng, count, K).astype(np.float16), random(rng, N, K).astype(np.float16)
        (y,) = graph.run(a, b)
        expected = a.astype(np.float64) @ b.T.astype(np.float64)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, expected, rtol=1e-5 if fuse else 1e-3, atol=1e-5 if fuse else 1e-2)
    graph.close()


def test_a_product_used_twice_is_not_fused_away(library: KernelLibrary):
    graph = Graph(library)
    x, w, bias = graph.input(F32, -1, K), graph.input(F32, N, K), graph.input(F32, N)
    product = linear(graph, x, w, N)
    graph.compile(product, graph.node("Add", product, bias, outputs=[rows(N)]))
    rng = np.random.default_rng(2)
    a = [random(rng, 3, K), random(rng, N, K), random(rng, N)]
    plain, added = graph.run(*a)
    np.testing.assert_allclose(plain, a[0] @ a[1].T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(added, plain + a[2], rtol=1e-6)
    graph.close()


def test_values_that_live_at_once_do_not_share_memory(library: KernelLibrary, fuse):
    """A chain of sums where every value is used again much later."""
    graph = Graph(library, fuse)
    x = graph.input(F32, -1, N)
    chain = [x]
    for _ in range(12):
        chain.append(graph.node("Add", chain[-1], x, outputs=[rows(N)]))
    total = chain[-1]
    for value in reversed(chain[:-1]):
        total = graph.node("Add", total, value, outputs=[rows(N)])
    graph.compile(total)
    for count in (2, 7):
        ones = np.ones((count, N), np.float32)
        np.testing.assert_array_equal(graph.run(ones)[0], sum(range(1, 14)) * ones)
    graph.close()


def rotary_graph(library: KernelLibrary, fuse: bool, heads: int, kv_heads: int, size: int, normed: bool) -> Graph:
    graph = Graph(library, fuse)
    width, kv_width = heads * size, kv_heads * size
    packed, table, positions = (
        graph.input(F32, -1, width + 2 * kv_width), graph.input(F32, 50, size), graph.input(DType.INT32, -1),
    )  # fmt: skip
    slots, cache = graph.input(DType.INT32, -1), graph.input(F32, 8, 4, kv_heads, size)
    other_cache, gamma = graph.input(F32, 8, 4, kv_heads, size), graph.input(F32, size)
    query = graph.node(
        "SplitWithSize",
        packed,
        [[width, kv_width, kv_width]],
        [1],
        outputs=[rows(width), rows(kv_width), rows(kv_width)],
    )
    key, value = query + 1, query + 2
    if normed:
        query, key = (norm_heads(graph, x, count, size, gamma) for x, count in ((query, heads), (key, kv_heads)))
    cos = graph.node("Gather", table, positions, [0], [0], outputs=[rows(size)])
    turned = graph.node(
        "ApplyRotaryPosEmb", query, key, cos, cos, positions, [2], outputs=[rows(width), rows(kv_width)]
    )
    graph.node("ReshapeAndCache", turned + 1, value, cache, other_cache, slots, outputs=[rows(kv_width)])
    return graph.compile(turned)


def norm_heads(graph: Graph, x: int, heads: int, size: int, gamma: int) -> int:
    shape = tensor_type(F32, -1, heads, size)
    split = graph.node("Reshape", x, [[-1, heads, size]], outputs=[shape])
    normed = graph.node("RmsNorm", split, gamma, [1e-6], outputs=[shape, tensor_type(F32, -1, heads, 1)])
    return graph.node("Reshape", normed, [[-1, heads * size]], outputs=[rows(heads * size)])


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("heads, kv_heads, size", [(4, 2, 8), (3, 1, 20), (2, 2, 34)])
def test_rotary_and_cache_is_bitwise_what_it_replaces(library: KernelLibrary, heads, kv_heads, size, normed):
    fused, plain = (rotary_graph(library, fuse, heads, kv_heads, size, normed) for fuse in (True, False))
    assert "RotaryAndCache" in fused.kernels() and "RotaryAndCache" not in plain.kernels()
    rng = np.random.default_rng(3)
    for count in (1, 6):
        inputs = [random(rng, count, (heads + 2 * kv_heads) * size), random(rng, 50, size)]
        inputs += [rng.integers(0, 50, count).astype(np.int32), rng.permutation(32)[:count].astype(np.int32) - 1]
        caches = [[random(np.random.default_rng(4), 8, 4, kv_heads, size) for _ in range(2)] for _ in range(2)]
        gamma = random(rng, size)
        queries = [graph.run(*inputs, *own, gamma)[0] for graph, own in zip((fused, plain), caches, strict=True)]
        np.testing.assert_array_equal(*queries)
        for ours, theirs in zip(*caches, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    fused.close()
    plain.close()


def test_a_rotated_query_that_is_used_before_the_write_is_not_fused(library: KernelLibrary):
    graph = Graph(library)
    query, key, cos = graph.input(F32, -1, 8), graph.input(F32, -1, 8), graph.input(F32, 50, 8)
    at, cache, other = graph.input(DType.INT32, -1), graph.input(F32, 4, 4, 1, 8), graph.input(F32, 4, 4, 1, 8)
    row = graph.node("Gather", cos, at, [0], [0], outputs=[rows(8)])
    turned = graph.node("ApplyRotaryPosEmb", query, key, row, row, at, [2], outputs=[rows(8), rows(8)])
    doubled = graph.node("Add", turned, turned, outputs=[rows(8)])
    graph.node("ReshapeAndCache", turned + 1, key, cache, other, at, outputs=[rows(8)])
    graph.compile(doubled)
    rng = np.random.default_rng(5)
    x, table, positions = random(rng, 3, 8), random(rng, 50, 8), np.array([1, 0, 7], np.int32)
    caches = [np.zeros((4, 4, 1, 8), np.float32) for _ in range(2)]
    c = table[positions]
    expected = 2 * (x * c + np.concatenate([-x[:, 4:], x[:, :4]], axis=1) * c)
    np.testing.assert_allclose(graph.run(x, x, table, positions, *caches)[0], expected, rtol=1e-5, atol=1e-5)
    graph.close()


def test_refusals(library: KernelLibrary):
    graph = Graph(library)
    x = graph.input(F32, -1, K)
    for refused, message in (
        (lambda: graph.node("Sin", x, outputs=[rows(K)]), "does not know the op Sin"),
        (lambda: graph.node("Add", x, 99, outputs=[rows(K)]), "no value 99"),
        (lambda: graph.input(F32, *[1] * 9), "9 axes"),
        (lambda: graph.compile(graph.constant(1)), "output 0 is no tensor"),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    graph.close()


def test_a_refused_run_leaves_the_graph_usable(library: KernelLibrary):
    graph = Graph(library)
    x, y = graph.input(F32, -1, K), graph.input(F32, -1, K)
    graph.compile(graph.node("Add", x, y, outputs=[rows(K)]))
    three, two = np.ones((3, K), np.float32), np.ones((2, K), np.float32)
    with pytest.raises(ValueError, match="Add.*broadcast"):
        graph.run(three, two)
    with pytest.raises(ValueError, match="2 inputs, not 1"):
        graph.run(three)
    np.testing.assert_array_equal(graph.run(three, three)[0], 2 * three)
    graph.close()
