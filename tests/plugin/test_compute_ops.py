"""Norms, activations, matrix products and arithmetic as MindSpore's primitives, against float64."""

import numpy as np
from mindspore import nn, ops
from mindspore.ops import auto_generate as gen
from op_calls import EPSILON, assert_close, float64, int64, random_tensor, run

EPS = EPSILON["float32"]
NORM_EPSILON = 1e-5


class NormsAndActivations(nn.Cell):
    def __init__(self):
        super().__init__()
        self.rms_norm = gen.RmsNorm(NORM_EPSILON)
        self.add_rms_norm = gen.AddRmsNorm()
        self.swiglu = gen.Swiglu()
        self.silu = gen.SiLU()
        self.gelu = ops.GeLU()
        self.layer_norm = ops.LayerNorm(-1, -1, NORM_EPSILON)

    def construct(self, x, residual, gamma, beta, heads, head_gamma):
        y, rstd = self.rms_norm(x, gamma)
        head_y, _ = self.rms_norm(heads, head_gamma)
        added_y, added_rstd, total = self.add_rms_norm(x, residual, gamma, NORM_EPSILON)
        activated = self.swiglu(x, -1), self.silu(x), self.gelu(x)
        return y, rstd, head_y, added_y, added_rstd, total, *activated, *self.layer_norm(x, gamma, beta)


def assert_norm(y, rstd, x, gamma, dtype):
    factor = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + NORM_EPSILON)
    relative_error = (x.shape[-1] + 8) * EPS  # of the sum of squares, its root, and two products
    assert_close(y, x * factor * gamma, relative_error * abs(x * factor * gamma), dtype)
    if rstd is not None:
        assert_close(rstd, factor, relative_error * factor, "float32")


def assert_layer_norm(y, mean, rstd, x, gamma, beta, dtype):
    exact_mean, variance = np.mean(x, axis=-1, keepdims=True), np.var(x, axis=-1, keepdims=True)
    factor = 1 / np.sqrt(variance + NORM_EPSILON)
    relative_error = (x.shape[-1] + 8) * EPS
    expected = (x - exact_mean) * factor * gamma + beta
    size = (abs(x) + abs(exact_mean)) * factor * abs(gamma) + abs(beta)
    assert_close(y, expected, relative_error * size, dtype)
    assert_close(mean, exact_mean, relative_error * np.mean(abs(x), axis=-1, keepdims=True), "float32")
    assert_close(rstd, factor, relative_error * factor, "float32")


def silu(x):
    return x / (1 + np.exp(-x))


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def test_norms_and_activations(mode, dtype):
    rng = np.random.default_rng(0)
    gamma, beta, head_gamma = (random_tensor(rng, (width,), dtype) for width in (96, 96, 24))
    calls = [
        (random_tensor(rng, (tokens, 96), dtype), random_tensor(rng, (tokens, 96), dtype), gamma, beta,
         random_tensor(rng, (tokens, 4, 24), dtype), head_gamma)
        for tokens in (3, 17)
    ]  # fmt: skip
    for call, outputs in zip(calls, run(mode, NormsAndActivations(), *calls), strict=True):
        x, residual, gamma_values, beta_values, heads, head_gamma_values = map(float64, call)
        y, rstd, head_y, added_y, added_rstd, total, swiglu, silu_y, gelu_y, *normed = outputs
        assert_norm(y, rstd, x, gamma_values, dtype)
        assert_norm(head_y, None, heads, head_gamma_values, dtype)
        assert_close(total, x + residual, np.zeros_like(x), dtype)
        assert_norm(added_y, added_rstd, float64(total), gamma_values, dtype)
        gated = silu(x[:, :48]) * x[:, 48:]
        assert_close(swiglu, gated, 8 * EPS * abs(gated), dtype)
        assert_close(silu_y, silu(x), 8 * EPS * abs(silu(x)), dtype)
        assert_close(gelu_y, gelu(x), 100 * EPS * abs(gelu(x)), dtype)
        assert_layer_norm(*normed, x, gamma_values, beta_values, dtype)


class MatrixProducts(nn.Cell):
    def __init__(self):
        super().__init__()
        self.matmul = ops.MatMul()
        self.matmul_transpose_a = ops.MatMul(transpose_a=True)
        self.matmul_transpose_b = ops.MatMul(transpose_b=True)
        self.matmul_ext = gen.MatMulExt()
        self.dense = gen.Dense()
        self.batch_matmul = ops.BatchMatMul()
        self.batch_matmul_transpose_b = ops.BatchMatMul(transpose_b=True)
        self.grouped_matmul = gen.GroupedMatmul(split_item=3, group_type=0)

    def construct(self, x, batch, w, w_t, stack, stack_t, vector, bias, ends):
        """x (T, K), batch (E, T, K), w (N, K), w_t (K, N), stack (E, N, K), stack_t (E, K, N), vector (K), bias (N)."""
        return (
            self.matmul(x, w_t),
            self.matmul_transpose_a(w_t, w_t),
            self.matmul_transpose_b(x, w),
            self.dense(x, w),
            self.dense(x, w, bias),
            self.dense(batch, w, bias),
            self.batch_matmul(batch, stack_t),
            self.batch_matmul_transpose_b(batch, stack),
            self.matmul_ext(x, w_t),
            self.matmul_ext(batch, w_t),
            self.matmul_ext(batch, stack_t),
            self.matmul_ext(x, stack_t),
            self.matmul_ext(x, vector),
            self.matmul_ext(vector, w_t),
            self.grouped_matmul([x], [stack_t], None, None, None, None, None, ends)[0],
        )


def products(x, batch, w, w_t, stack, stack_t, vector, bias, ends):
    """What MatrixProducts computes; with absolute values, what its rounding errors are in proportion to."""
    grouped = np.zeros((len(x), len(w)))
    for slot, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
        grouped[start:end] = x[start:end] @ stack_t[slot]
    return (
        x @ w_t,
        w_t.T @ w_t,
        x @ w.T,
        x @ w.T,
        x @ w.T + bias,
        batch @ w.T + bias,
        batch @ stack_t,
        batch @ stack.transpose(0, 2, 1),
        x @ w_t,
        batch @ w_t,
        batch @ stack_t,
        x @ stack_t,
        x @ vector,
        vector @ w_t,
        grouped,
    )


def test_matrix_products(mode, dtype):
    slots, inner, outer = 3, 100, 72
    rng = np.random.default_rng(0)
    calls = [
        [
            *(
                random_tensor(rng, shape, dtype)
                for shape in [
                    (tokens, inner), (slots, tokens, inner), (outer, inner), (inner, outer), (slots, outer, inner),
                    (slots, inner, outer), (inner,), (outer,),
                ]
            ),
            int64(*ends),
        ]
        for tokens, ends in [(5, (2, 2, 4)), (70, (0, 30, 70))]
    ]  # fmt: skip
    for call, outputs in zip(calls, run(mode, MatrixProducts(), *calls), strict=True):
        *values, ends = [*map(float64, call[:-1]), call[-1].asnumpy()]
        expected, magnitudes = products(*values, ends), products(*map(abs, values), ends)
        for actual, result, magnitude in zip(outputs, expected, magnitudes, strict=True):
            terms = max(inner, outer) + 1
            assert_close(actual, result, terms * EPS * magnitude, dtype)


class Arithmetic(nn.Cell):
    def __init__(self):
        super().__init__()
        self.add = ops.Add()
        self.mul = ops.Mul()

    def construct(self, x, row, column):
        return (
            self.add(x, x), self.add(x, row), self.add(column, x), self.add(row, column),
            self.mul(x, x), self.mul(x, row), self.mul(column, x), self.mul(row, column),
        )  # fmt: skip


def test_arithmetic(mode, dtype):
    rng = np.random.default_rng(0)
    calls = [[random_tensor(rng, shape, dtype) for shape in [(tokens, 37), (37,), (tokens, 1)]] for tokens in (3, 20)]
    for call, outputs in zip(calls, run(mode, Arithmetic(), *calls), strict=True):
        x, row, column = map(float64, call)
        sums = x + x, x + row, column + x, row + column
        factors = x * x, x * row, column * x, row * column
        for actual, expected in zip(outputs, sums + factors, strict=True):
            assert_close(actual, expected, EPS / 2 * abs(expected), dtype)
