// Products of tokens with a layer's weights, as fusion makes them: arguments are checked here.
#include "dispatch.h"
#include "fused.h"

using namespace mindgen;

namespace {

int check_linear(const char* name, const void* x, int64_t x_step, const void* w, const void* y, int64_t M, int64_t N,
                 int64_t K, mg_dtype dtype, mg_dtype w_dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (w_dtype != dtype && !(dtype == MG_FLOAT32 && w_dtype == MG_BFLOAT16)) {
    return fail("%s: w_dtype must be dtype, or bfloat16 where dtype is float32", name);
  }
  if (M < 0 || N < 0 || K < 0) {
    return fail("%s: negative size: M %lld, N %lld, K %lld", name, (long long)M, (long long)N, (long long)K);
  }
  if (x_step < K) return fail("%s: x_step is %lld, less than K %lld", name, (long long)x_step, (long long)K);
  if (M > 0 && N > 0 && (!y || (K > 0 && (!x || !w)))) return fail("%s: x, w or y is NULL", name);
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_linear(const void* x, int64_t x_step, const void* w, const void* bias, const void* residual, void* y, int64_t M,
              int64_t N, int64_t K, mg_dtype dtype, mg_dtype w_dtype, mg_dtype y_dtype) {
  if (check_linear("linear", x, x_step, w, y, M, N, K, dtype, w_dtype) != MG_OK) return MG_ERROR;
  if (y_dtype != dtype && y_dtype != MG_FLOAT32) return fail("linear: y_dtype must be dtype or float32");
  if (M == 0 || N == 0) return MG_OK;
  return kernels().linear(x, x_step, w, bias, residual, y, M, N, K, dtype, w_dtype, y_dtype);
}

int mg_linear_swiglu(const void* x, int64_t x_step, const void* w, const void* bias, void* y, int64_t M, int64_t N,
                     int64_t K, mg_dtype dtype, mg_dtype w_dtype) {
  if (check_linear("linear_swiglu", x, x_step, w, y, M, N, K, dtype, w_dtype) != MG_OK) return MG_ERROR;
  if (M == 0 || N == 0) return MG_OK;
  return kernels().linear_swiglu(x, x_step, w, bias, y, M, N, K, dtype, w_dtype);
}

}  // extern "C"

namespace {

// y (T, N) from x (T, K) and w (N, K)
void infer_linear(const OpCall& call) {
  call.output(0).set_shape({call.input(0).shape.first(), call.input(1).shape.first()});
}

int run_linear(const OpCall& call) {
  const Tensor &x = call.input(0), &w = call.input(1), &y = call.output(0);
  return mg_linear(x.data, x.step, w.data, call.data_or_null(2), call.data_or_null(3), y.data, y.shape.first(),
                   y.shape.last(), w.shape.last(), x.dtype, w.dtype, y.dtype);
}

// y (T, N) from x (T, K) and w (2N, K)
void infer_linear_swiglu(const OpCall& call) {
  call.output(0).set_shape({call.input(0).shape.first(), call.input(1).shape.first() / 2});
}

int run_linear_swiglu(const OpCall& call) {
  const Tensor &x = call.input(0), &w = call.input(1), &y = call.output(0);
  return mg_linear_swiglu(x.data, x.step, w.data, call.data_or_null(2), y.data, y.shape.first(), y.shape.last(),
                          w.shape.last(), y.dtype, w.dtype);
}

}  // namespace

namespace mindgen::fused {

const Op linear = {.name = "Linear", .signature = "x, w, bias?, residual? -> y", .infer = infer_linear,
                   .run = run_linear, .strided_inputs = 1, .in_place = {0, 3}, .cost = matmul_cost};
const Op linear_swiglu = {.name = "LinearSwiglu", .signature = "x, w, bias? -> y", .infer = infer_linear_swiglu,
                          .run = run_linear_swiglu, .strided_inputs = 1, .cost = matmul_cost};

}  // namespace mindgen::fused
