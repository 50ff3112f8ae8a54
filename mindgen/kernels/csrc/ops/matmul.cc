// Matrix products of MindSpore: their arguments are checked here.
#include <algorithm>

#include "dispatch.h"
#include "op.h"

using namespace mindgen;

extern "C" {

int mg_matmul(const void* x, const void* w, const void* bias, void* y, int64_t batch, int64_t M, int64_t N,
              int64_t K, bool transpose_x, bool transpose_w, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("matmul: dtype must be float32, bfloat16 or float16");
  if (batch < 0 || M < 0 || N < 0 || K < 0) {
    return fail("matmul: negative size: batch %lld, M %lld, N %lld, K %lld", (long long)batch, (long long)M,
                (long long)N, (long long)K);
  }
  if (batch == 0 || M == 0 || N == 0) return MG_OK;
  if (!y || (K > 0 && (!x || !w))) return fail("matmul: x, w or y is NULL");
  return kernels().matmul(x, w, bias, y, batch, M, N, K, transpose_x, transpose_w, dtype);
}

double mg_measure_read_bandwidth(const void* data, int64_t bytes) {
  return data ? kernels().measure_read_bandwidth(data, bytes) : 0;
}

double mg_measure_product_rate(mg_dtype dtype) {
  return is_compute_dtype(dtype) ? kernels().measure_product_rate(dtype) : 0;
}

}  // extern "C"

namespace {

// a (..., M, K) or (..., K, M), b (..., K, N) or (..., N, K) -> (..., M, N)
void infer_matmul(const OpCall& call) {
  Shape shape = call.input(0).shape;
  const Shape& b = call.input(1).shape;
  const int ndim = shape.ndim;
  require(ndim >= 2 && b.ndim == ndim, "the factors must have the same number of axes");
  if (call.scalar<bool>(2)) std::swap(shape.dims[ndim - 1], shape.dims[ndim - 2]);
  shape.dims[ndim - 1] = b.dims[ndim - (call.scalar<bool>(3) ? 2 : 1)];
  call.output(0).set_shape(shape);
}

int run_matmul(const OpCall& call) {
  const Tensor &a = call.input(0), &b = call.input(1), &y = call.output(0);
  require(a.shape.ndim == 2 && b.shape.ndim == 2, "MatMul serves two matrices; use BatchMatMul for more axes");
  const bool transpose_a = call.scalar<bool>(2), transpose_b = call.scalar<bool>(3);
  const int64_t M = a.shape.dim(transpose_a), K = a.shape.dim(!transpose_a), N = b.shape.dim(!transpose_b);
  require(b.shape.dim(transpose_b) == K, "the inner sizes differ");
  return mg_matmul(a.data, b.data, nullptr, y.data, 1, M, N, K, transpose_a, transpose_b, common_float({a, b, y}));
}

bool same_axes(const Shape& a, const Shape& b, int axes) { return std::equal(a.dims, a.dims + axes, b.dims); }

// a (..., M, K), b (..., K, N) with the same leading axes
int batch_matmul(const OpCall& call, bool transpose_a, bool transpose_b) {
  const Tensor &a = call.input(0), &b = call.input(1), &y = call.output(0);
  const int axes = a.shape.ndim;
  require(axes == b.shape.ndim && axes >= 2 && same_axes(a.shape, b.shape, axes - 2), "leading axes must be the same");
  const int64_t M = a.shape.dim(transpose_a ? -1 : -2), K = a.shape.dim(transpose_a ? -2 : -1);
  const int64_t N = b.shape.dim(transpose_b ? -2 : -1);
  require(b.shape.dim(transpose_b ? -1 : -2) == K, "the inner sizes differ");
  return mg_matmul(a.data, b.data, nullptr, y.data, a.shape.elements(0, axes - 2), M, N, K, transpose_a, transpose_b,
                   common_float({a, b, y}));
}

int run_batch_matmul(const OpCall& call) { return batch_matmul(call, call.scalar<bool>(2), call.scalar<bool>(3)); }

// a (..., M, K) or (K), b (..., K, N), leading axes broadcast
int broadcast_matmul(const OpCall& call) {
  const Tensor &a = call.input(0), &b = call.input(1), &y = call.output(0);
  const int a_axes = std::max(a.shape.ndim - 2, 0), b_axes = b.shape.ndim - 2, axes = std::max(a_axes, b_axes);
  const int64_t M = a.shape.ndim == 1 ? 1 : a.shape.dim(-2), K = a.shape.last(), N = b.shape.last();
  const mg_dtype dtype = common_float({a, b, y});
  const int64_t item = item_size(dtype);
  const std::vector<int64_t> a_strides = broadcast_strides(a.shape, a_axes, axes);
  const std::vector<int64_t> b_strides = broadcast_strides(b.shape, b_axes, axes);
  for (int64_t batch = 0; batch < y.shape.elements(0, axes); ++batch) {
    int64_t a_start = 0, b_start = 0, rest = batch;
    for (int axis = axes - 1; axis >= 0; rest /= y.shape.dim(axis--)) {
      a_start += rest % y.shape.dim(axis) * a_strides[axis];
      b_start += rest % y.shape.dim(axis) * b_strides[axis];
    }
    if (mg_matmul(a.at(a_start * item), b.at(b_start * item), nullptr, y.at(batch * M * N * item), 1, M, N, K, false,
                  false, dtype) != MG_OK) {
      return MG_ERROR;
    }
  }
  return MG_OK;
}

// With numpy's rules for vectors and leading axes; MindSpore tells the output's shape.
int run_matmul_ext(const OpCall& call) {
  const Tensor &a = call.input(0), &b = call.input(1), &y = call.output(0);
  require(a.shape.ndim >= 1 && b.shape.ndim >= 1, "scalars have no matrix product");
  require(b.shape.dim(b.shape.ndim == 1 ? 0 : -2) == a.shape.last(), "the inner sizes differ");
  if (b.shape.ndim > 2) {
    const bool one_to_one = a.shape.ndim == b.shape.ndim && same_axes(a.shape, b.shape, a.shape.ndim - 2);
    return one_to_one ? batch_matmul(call, false, false) : broadcast_matmul(call);
  }
  const int64_t N = b.shape.ndim == 1 ? 1 : b.shape.last();
  return mg_matmul(a.data, b.data, nullptr, y.data, 1, a.shape.rows(), N, a.shape.last(), false, false,
                   common_float({a, b, y}));
}

void infer_dense(const OpCall& call) {
  Shape shape = call.input(0).shape;
  shape.dims[shape.ndim - 1] = call.input(1).shape.first();
  call.output(0).set_shape(shape);
}

// x (..., K), w (N, K) or (K), bias (N)
int run_dense(const OpCall& call) {
  const Tensor &x = call.input(0), &w = call.input(1), &y = call.output(0);
  require(x.shape.ndim >= 1 && (w.shape.ndim == 1 || w.shape.ndim == 2) && w.shape.last() == x.shape.last(),
          "w must be (out, in) for x (..., in)");
  const int64_t N = w.shape.rows();
  require(call.absent(2) || call.input(2).elements() == N, "bias must have the size of w's first axis");
  const mg_dtype dtype = call.absent(2) ? common_float({x, w, y}) : common_float({x, w, call.input(2), y});
  return mg_matmul(x.data, w.data, call.data_or_null(2), y.data, 1, x.shape.rows(), N, x.shape.last(), false, true,
                   dtype);
}

void infer_unknown(const OpCall&) { throw Refused("the shape of its output is not served"); }

}  // namespace

MINDGEN_OP(MatMul, .signature = "a, b, transpose_a: bool, transpose_b: bool -> y", .infer = infer_matmul,
           .run = run_matmul, .cost = matmul_cost)
MINDGEN_OP(BatchMatMul, .signature = "a, b, transpose_a: bool, transpose_b: bool -> y", .infer = infer_matmul,
           .run = run_batch_matmul, .cost = matmul_cost)
MINDGEN_OP(MatMulExt, .signature = "a, b -> y", .infer = infer_unknown, .run = run_matmul_ext)
MINDGEN_OP(Dense, .signature = "x, w, bias? -> y", .infer = infer_dense, .run = run_dense, .cost = matmul_cost)
