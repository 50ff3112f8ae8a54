// Norms: their arguments are checked here.
#include "dispatch.h"
#include "op.h"

using namespace mindgen;

namespace {

int check_rows(const char* name, int64_t rows, int64_t H, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (rows < 0 || H < 1) return fail("%s: %lld rows of %lld elements", name, (long long)rows, (long long)H);
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_rms_norm(const void* x, const void* gamma, void* y, float* rstd, int64_t rows, int64_t H, float epsilon,
                mg_dtype dtype) {
  if (check_rows("rms_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x || !gamma || !y) return fail("rms_norm: x, gamma or y is NULL");
  return kernels().rms_norm(x, gamma, y, rstd, rows, H, epsilon, dtype);
}

int mg_add_rms_norm(const void* x1, const void* x2, const void* gamma, void* y, float* rstd, void* sum,
                    int64_t rows, int64_t H, float epsilon, mg_dtype dtype) {
  if (check_rows("add_rms_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x1 || !x2 || !gamma || !y || !sum) return fail("add_rms_norm: x1, x2, gamma, y or sum is NULL");
  return kernels().add_rms_norm(x1, x2, gamma, y, rstd, sum, rows, H, epsilon, dtype);
}

int mg_layer_norm(const void* x, const void* gamma, const void* beta, void* y, float* mean, float* rstd, int64_t rows,
                  int64_t H, float epsilon, mg_dtype dtype) {
  if (check_rows("layer_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x || !gamma || !beta || !y) return fail("layer_norm: x, gamma, beta or y is NULL");
  return kernels().layer_norm(x, gamma, beta, y, mean, rstd, rows, H, epsilon, dtype);
}

}  // extern "C"

namespace {

// A value for each row of x.
Shape one_per_row(const Shape& x) {
  Shape shape = x;
  shape.dims[shape.ndim - 1] = 1;
  return shape;
}

void require_last(const Tensor& parameter, const Tensor& x, const char* name) {
  require(parameter.elements() == x.shape.last(), std::string(name) + " must have the size of x's last axis");
}

void infer_rms_norm(const OpCall& call) {
  call.output(0).set_shape(call.input(0).shape);
  call.output(1).set_shape(one_per_row(call.input(0).shape));
}

int run_rms_norm(const OpCall& call) {
  const Tensor &x = call.input(0), &gamma = call.input(1);
  require_last(gamma, x, "gamma");
  return mg_rms_norm(x.data, gamma.data, call.output(0).data, static_cast<float*>(call.output(1).data),
                     x.shape.rows(), x.shape.last(), call.scalar<float>(2), common_float({x, gamma}));
}

void infer_add_rms_norm(const OpCall& call) {
  infer_rms_norm(call);
  call.output(2).set_shape(call.input(0).shape);
}

int run_add_rms_norm(const OpCall& call) {
  const Tensor &x1 = call.input(0), &x2 = call.input(1), &gamma = call.input(2);
  require(x1.elements() == x2.elements(), "x1 and x2 must have one shape");
  require_last(gamma, x1, "gamma");
  return mg_add_rms_norm(x1.data, x2.data, gamma.data, call.output(0).data, static_cast<float*>(call.output(1).data),
                         call.output(2).data, x1.shape.rows(), x1.shape.last(), call.scalar<float>(3),
                         common_float({x1, x2, gamma}));
}

void infer_layer_norm(const OpCall& call) {
  infer_rms_norm(call);
  call.output(2).set_shape(call.output(1).shape);
}

int run_layer_norm(const OpCall& call) {
  const Tensor &x = call.input(0), &gamma = call.input(1), &beta = call.input(2);
  const auto is_last = [&](int i) { return x.shape.axis(call.scalar<int64_t>(i)) == x.shape.ndim - 1; };
  require(is_last(3) && is_last(4), "begin_norm_axis and begin_params_axis must be the last axis");
  require_last(gamma, x, "gamma");
  require_last(beta, x, "beta");
  return mg_layer_norm(x.data, gamma.data, beta.data, call.output(0).data, static_cast<float*>(call.output(1).data),
                       static_cast<float*>(call.output(2).data), x.shape.rows(), x.shape.last(),
                       call.scalar<float>(5), common_float({x, gamma, beta}));
}

}  // namespace

MINDGEN_OP(RmsNorm, .signature = "x, gamma, epsilon: float -> y, rstd", .infer = infer_rms_norm, .run = run_rms_norm)
MINDGEN_OP(AddRmsNorm, .signature = "x1, x2, gamma, epsilon: float -> y, rstd, sum", .infer = infer_add_rms_norm,
           .run = run_add_rms_norm, .in_place = {2, 1})
MINDGEN_OP(LayerNorm,
           .signature = "x, gamma, beta, begin_norm_axis: int, begin_params_axis: int, epsilon: float -> y, mean, rstd",
           .infer = infer_layer_norm, .run = run_layer_norm)
