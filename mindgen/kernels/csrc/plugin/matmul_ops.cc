// Matmuls and activations.
#include <algorithm>

#include "op_call.h"

using mindgen::OpCall;

// a (M, K) or (K, M), b (K, N) or (N, K), [transpose_a, transpose_b], y
MINDGEN_OP(MatMul) {
  call.require_count(5);
  call.require(call.ndims[0] == 2 && call.ndims[1] == 2, "MatMul serves two matrices; use BatchMatMul for more axes");
  const bool transpose_a = call.scalar<bool>(2), transpose_b = call.scalar<bool>(3);
  const int64_t M = call.dim(0, transpose_a), K = call.dim(0, !transpose_a);
  const int64_t N = call.dim(1, !transpose_b);
  call.require(call.dim(1, transpose_b) == K, "the inner sizes differ");
  return mg_matmul(call.params[0], call.params[1], nullptr, call.output(), 1, M, N, K, transpose_a, transpose_b,
                   call.float_dtype({0, 1, 4}));
}

static bool same_axes(const OpCall& call, int axes) {
  for (int axis = 0; axis < axes; ++axis)
    if (call.dim(0, axis) != call.dim(1, axis)) return false;
  return true;
}

// a (..., M, K), b (..., K, N) with the same leading axes
static int batch_matmul(const OpCall& call, bool transpose_a, bool transpose_b) {
  const int axes = call.ndims[0];
  call.require(axes == call.ndims[1] && axes >= 2 && same_axes(call, axes - 2), "leading axes must be the same");
  const int64_t M = call.dim(0, transpose_a ? -1 : -2), K = call.dim(0, transpose_a ? -2 : -1);
  const int64_t N = call.dim(1, transpose_b ? -2 : -1);
  call.require(call.dim(1, transpose_b ? -1 : -2) == K, "the inner sizes differ");
  return mg_matmul(call.params[0], call.params[1], nullptr, call.output(), call.elements(0, 0, axes - 2), M, N, K,
                   transpose_a, transpose_b, call.float_dtype({0, 1, call.count - 1}));
}

// a, b, [transpose_a, transpose_b], y
MINDGEN_OP(BatchMatMul) {
  call.require_count(5);
  return batch_matmul(call, call.scalar<bool>(2), call.scalar<bool>(3));
}

// a (..., M, K) or (K), b (..., K, N), leading axes broadcast
static int broadcast_matmul(const OpCall& call) {
  const int a_axes = std::max(call.ndims[0] - 2, 0), b_axes = call.ndims[1] - 2, axes = std::max(a_axes, b_axes);
  const int64_t M = call.ndims[0] == 1 ? 1 : call.dim(0, -2), K = call.last(0), N = call.last(1);
  const mg_dtype dtype = call.float_dtype({0, 1, 2});
  const int64_t item = call.item_size(0);
  const std::vector<int64_t> a_strides = call.broadcast_strides(0, a_axes, axes);
  const std::vector<int64_t> b_strides = call.broadcast_strides(1, b_axes, axes);
  for (int64_t batch = 0; batch < call.elements(2, 0, axes); ++batch) {
    int64_t a_start = 0, b_start = 0, rest = batch;
    for (int axis = axes - 1; axis >= 0; rest /= call.dim(2, axis--)) {
      a_start += rest % call.dim(2, axis) * a_strides[axis];
      b_start += rest % call.dim(2, axis) * b_strides[axis];
    }
    if (mg_matmul(call.at(0, a_start * item), call.at(1, b_start * item), nullptr, call.at(2, batch * M * N * item), 1,
                  M, N, K, false, false, dtype) != MG_OK)
      return MG_ERROR;
  }
  return MG_OK;
}

// a, b, y with numpy's rules for vectors and leading axes
MINDGEN_OP(MatMulExt) {
  call.require_count(3);
  call.require(call.ndims[0] >= 1 && call.ndims[1] >= 1, "scalars have no matrix product");
  call.require(call.dim(1, call.ndims[1] == 1 ? 0 : -2) == call.last(0), "the inner sizes differ");
  if (call.ndims[1] > 2)
    return call.ndims[0] == call.ndims[1] && same_axes(call, call.ndims[0] - 2) ? batch_matmul(call, false, false)
                                                                               : broadcast_matmul(call);
  const int64_t N = call.ndims[1] == 1 ? 1 : call.last(1);
  return mg_matmul(call.params[0], call.params[1], nullptr, call.output(), 1, call.rows(0), N, call.last(0), false,
                   false, call.float_dtype({0, 1, 2}));
}

// x (..., K), w (N, K) or (K), bias (N) or none, y
MINDGEN_OP(Dense) {
  call.require_count(4);
  call.require(call.ndims[0] >= 1 && (call.ndims[1] == 1 || call.ndims[1] == 2) && call.last(1) == call.last(0),
               "w must be (out, in) for x (..., in)");
  const int64_t N = call.rows(1);
  const void* bias = call.absent(2) ? nullptr : call.params[2];
  call.require(!bias || call.elements(2) == N, "bias must have the size of w's first axis");
  const mg_dtype dtype = bias ? call.float_dtype({0, 1, 2, 3}) : call.float_dtype({0, 1, 3});
  return mg_matmul(call.params[0], call.params[1], bias, call.output(), 1, call.rows(0), N, call.last(0), false, true,
                   dtype);
}

// x (T, K), weight (E, K, N), bias, scale, offset, antiquant_scale, antiquant_offset, group_list (E) cumulative,
// [split_item, group_type, transpose_a, transpose_b], y
MINDGEN_OP(GroupedMatmul) {
  call.require_count(13);
  for (int i = 2; i < 7; ++i) call.require_absent(i, "bias, scale or offset");
  call.require(call.scalar<int64_t>(8) == 3 && call.scalar<int64_t>(9) == 0, "split_item must be 3, group_type 0");
  call.require(call.ndims[0] == 2 && call.ndims[1] == 3, "x must be (T, K), weight (E, K, N)");
  const bool transpose_b = call.scalar<bool>(11);
  const int64_t K = call.dim(0, 1), N = call.dim(1, transpose_b ? 1 : 2);
  call.require(!call.scalar<bool>(10) && call.dim(1, transpose_b ? 2 : 1) == K, "the inner sizes differ");
  call.require(call.elements(7) == call.dim(1, 0), "group_list must have an entry for each weight");
  return mg_grouped_matmul(call.params[0], call.params[1], call.integers<int64_t>(7, "int64"), call.output(),
                           call.dim(0, 0), call.dim(1, 0), K, N, transpose_b, call.float_dtype({0, 1, 12}));
}

// x (..., 2H), [dim], y
MINDGEN_OP(Swiglu) {
  call.require_count(3);
  call.require(call.axis(0, call.scalar<int64_t>(1)) == call.ndims[0] - 1 && call.last(0) % 2 == 0,
               "dim must be the last axis, of even size");
  return mg_swiglu(call.params[0], call.output(), call.rows(0), call.last(0) / 2, call.float_dtype({0}));
}

MINDGEN_OP(SiLU) {
  call.require_count(2);
  return mg_silu(call.params[0], call.output(), call.elements(0), call.float_dtype({0}));
}

MINDGEN_OP(GeLU) {
  call.require_count(2);
  return mg_gelu(call.params[0], call.output(), call.elements(0), call.float_dtype({0}));
}
