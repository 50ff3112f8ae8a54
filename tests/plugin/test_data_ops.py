"""Ops that move or convert elements, and arithmetic of the dtypes that models do not use: exact, against numpy."""

import mindspore
import numpy as np
import pytest
from mindspore import Tensor, mint, nn, ops
from mindspore.ops import auto_generate as gen
from op_calls import int32, int64, random_tensor, run

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["bfloat16", "float16", "float32", "float64"]
ARITHMETIC = [*INTEGERS, *FLOATS]
RARE_INTEGERS = [dtype for dtype in INTEGERS if dtype not in ("int64", "uint8")]


class DataMovement(nn.Cell):
    def __init__(self):
        super().__init__()
        self.gather = ops.Gather()
        self.batch_gather = ops.Gather(batch_dims=1)
        self.reshape = ops.Reshape()
        self.concat_rows = ops.Concat(0)
        self.concat_columns = ops.Concat(-1)
        self.split = ops.Split(1, 3)
        self.split_with_size = gen.SplitWithSize()

    def construct(self, x, rows, columns, columns_of_rows):
        """x (T, 24), rows (n, 2) int32, columns (m) int64, columns_of_rows (T, 3) int32."""
        return (
            self.gather(x, rows, 0),
            self.gather(x, columns, 1),
            self.batch_gather(x, columns_of_rows, 1),
            self.reshape(x, (-1, 4, 6)),
            self.concat_rows((x, x)),
            self.concat_columns((x, self.gather(x, columns, 1), x)),
            *self.split(x),
            *self.split_with_size(x, (16, 0, 7, 1), -1),
        )


def moved(x, rows, columns, columns_of_rows):
    picked = np.take(x, columns, axis=1)
    return (
        x[rows], picked, np.take_along_axis(x, columns_of_rows, axis=1), x.reshape(-1, 4, 6), np.concatenate([x, x]),
        np.concatenate([x, picked, x], axis=-1), *np.split(x, 3, axis=1), *np.split(x, [16, 16, 23], axis=1),
    )  # fmt: skip


def test_data_movement(mode, dtype):
    rng = np.random.default_rng(0)
    calls = [
        (random_tensor(rng, (tokens, 24), dtype), Tensor(rng.integers(-tokens, tokens, (tokens + 2, 2), np.int32)),
         int64(*range(-tokens, tokens)), Tensor(rng.integers(0, 24, (tokens, 3), np.int32)))
        for tokens in (3, 8)
    ]  # fmt: skip
    for call, outputs in zip(calls, run(mode, DataMovement(), *calls), strict=True):
        for actual, expected in zip(outputs, moved(*(x.asnumpy() for x in call)), strict=True):
            np.testing.assert_array_equal(actual.asnumpy(), expected)


class Casts(nn.Cell):
    def construct(self, x):
        return tuple([ops.cast(x, dtype) for dtype in CAST_TARGETS])


CAST_TARGETS = tuple(getattr(mindspore, name) for name in [*ARITHMETIC, "bool_"])


def as_mindspore(dtype):
    return getattr(mindspore, "bool_" if dtype == "bool" else dtype)


def converted(values, dtype):
    """values as an array of that dtype, bfloat16 as float32."""
    return values.astype(np.float32 if dtype == "bfloat16" else dtype)


@pytest.mark.parametrize(
    "from_dtype",
    [*FLOATS, "bool", "int64", "uint8", *(pytest.param(dtype, marks=pytest.mark.slow) for dtype in RARE_INTEGERS)],
)
def test_cast(mode, from_dtype):
    """Numbers that every dtype holds: what casts must not change."""
    sizes = [np.arange(count).reshape(-1, 3) % 100 for count in (6, 300)]
    values = [converted(array, from_dtype) for array in sizes]
    calls = [[Tensor(array, as_mindspore(from_dtype))] for array in values]
    for array, outputs in zip(values, run(mode, Casts(), *calls), strict=True):
        for to_dtype, actual in zip([*ARITHMETIC, "bool"], outputs, strict=True):
            assert actual.dtype == as_mindspore(to_dtype)
            np.testing.assert_array_equal(converted(actual.asnumpy(), to_dtype), converted(array, to_dtype))


def test_cast_truncates_and_wraps():
    x = Tensor([-2.7, -0.4, 0.6, 2.5], mindspore.float32)
    np.testing.assert_array_equal(x.astype(mindspore.int8).asnumpy(), np.array([-2, 0, 0, 2], np.int8))
    x = Tensor([300, -1, 127, 128], mindspore.int32)
    np.testing.assert_array_equal(x.astype(mindspore.int8).asnumpy(), np.array([44, -1, 127, -128], np.int8))
    np.testing.assert_array_equal(x.astype(mindspore.uint16).asnumpy(), np.array([300, 65535, 127, 128], np.uint16))


@pytest.mark.parametrize("dtype", ARITHMETIC)
def test_arithmetic_of_every_dtype(dtype):
    a, b = converted(np.arange(6).reshape(2, 3), dtype), converted(np.array([[7], [2]]), dtype)
    x, y = Tensor(a, as_mindspore(dtype)), Tensor(b, as_mindspore(dtype))
    for actual, expected in [(x + y, a + b), (x * y, a * b), (ops.add(x, x), a + a), (ops.mul(x, x), a * a)]:
        assert actual.dtype == x.dtype
        np.testing.assert_array_equal(converted(actual.asnumpy(), dtype), expected)


def test_arithmetic_of_bools():
    a, b = np.array([True, True, False]), np.array([True, False, False])
    np.testing.assert_array_equal(ops.mul(Tensor(a), Tensor(b)).asnumpy(), a & b)
    np.testing.assert_array_equal((Tensor(a) + Tensor(b)).asnumpy(), a + b)
    np.testing.assert_array_equal((Tensor(a) * int32(2, 3, 4)).asnumpy(), a * np.array([2, 3, 4]))
    np.testing.assert_array_equal((Tensor(a) * 2.5).asnumpy(), a * 2.5)


def test_python_scalars_and_mixed_dtypes():
    x = Tensor(np.arange(4, dtype=np.int64))
    assert (x + 1).dtype == mindspore.int64
    np.testing.assert_array_equal((x + 1).asnumpy(), [1, 2, 3, 4])
    np.testing.assert_array_equal((x * 0.5).asnumpy(), [0, 0.5, 1, 1.5])
    mixed = x.astype(mindspore.int32) + Tensor(np.full(4, 0.25))
    assert mixed.dtype == mindspore.float64
    np.testing.assert_array_equal(mixed.asnumpy(), np.arange(4) + 0.25)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "float64", "complex64"])
def test_movement_of_other_dtypes(dtype):
    values = (np.arange(12).reshape(4, 3) % 5).astype(dtype)
    x = Tensor(values)
    np.testing.assert_array_equal(ops.gather(x, int32(2, 0), 0).asnumpy(), values[[2, 0]])
    np.testing.assert_array_equal(x.reshape(3, 4).asnumpy(), values.reshape(3, 4))
    np.testing.assert_array_equal(ops.cat([x, x], 1).asnumpy(), np.concatenate([values, values], axis=1))
    for actual, expected in zip(ops.split(x, 2), np.split(values, 2), strict=True):
        np.testing.assert_array_equal(actual.asnumpy(), expected)


def test_matrix_products_by_numpys_rules():
    rng = np.random.default_rng(0)
    shapes = [((4,), (4,)), ((3, 4), (4,)), ((4,), (2, 4, 5)), ((2, 1, 3, 4), (1, 2, 4, 5)), ((3, 4), (2, 4, 5))]
    for a_shape, b_shape in shapes:
        a, b = (rng.integers(-4, 5, shape).astype(np.float32) for shape in (a_shape, b_shape))
        np.testing.assert_array_equal(mint.matmul(Tensor(a), Tensor(b)).asnumpy(), a @ b)


def test_gradients():
    weight = Tensor(np.random.default_rng(0).integers(-4, 5, (3, 4)).astype(np.float32))

    def loss(x):
        return (ops.matmul(weight, x) * 2).sum()

    gradient = mindspore.grad(loss)(Tensor(np.ones((4, 2), np.float32)))
    np.testing.assert_array_equal(gradient.asnumpy(), np.repeat(2 * weight.asnumpy().sum(0)[:, None], 2, axis=1))


class OfView(nn.Cell):
    """Ops of a transpose or a slice, which MindSpore passes on without copying it."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.matmul = ops.MatMul(transpose_b=True)
        self.mul = ops.Mul()

    def construct(self, x):
        if self.kind == "transposed":
            view = mint.transpose(x, 0, 1)
        else:
            view = mint.narrow(x, 0 if self.kind == "rows" else 1, 1, 2)
        return self.matmul(view, view), self.mul(view, view), ops.cast(view, mindspore.int32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["transposed", "rows", "columns"])
@pytest.mark.parametrize("mode", ["static graph", "pynative"])
def test_views(mode, kind, dtype):
    x = np.arange(12).reshape(3, 4)
    view = {"transposed": x.T, "rows": x[1:], "columns": x[:, 1:3]}[kind]
    [outputs] = run(mode, OfView(kind), [Tensor(x.astype(dtype))])
    expected = view @ view.T, view * view, view
    for actual, wanted in zip(outputs, expected, strict=True):
        np.testing.assert_array_equal(actual.asnumpy(), wanted)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "complex128"])
def test_views_of_other_dtypes(dtype):
    x = (np.arange(24).reshape(2, 3, 4) % 3).astype(dtype)
    view = mint.transpose(Tensor(x), 0, 2)[:, 1:]
    expected = np.concatenate([x.T[:, 1:], x.T[:, 1:]], axis=1)
    np.testing.assert_array_equal(ops.Concat(1)((view, view)).asnumpy(), expected)
