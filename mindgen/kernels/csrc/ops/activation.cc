// Activations: their arguments are checked here.
#include "dispatch.h"
#include "op.h"

using namespace mindgen;

namespace {

int activate(const char* name, decltype(mg_silu)* KernelTable::*kernel, const void* x, void* y, int64_t count,
             mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (count < 0) return fail("%s: %lld elements", name, (long long)count);
  if (count == 0) return MG_OK;
  if (!x || !y) return fail("%s: x or y is NULL", name);
  return (kernels().*kernel)(x, y, count, dtype);
}

}  // namespace

extern "C" {

int mg_silu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return activate("silu", &KernelTable::silu, x, y, count, dtype);
}

int mg_gelu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return activate("gelu", &KernelTable::gelu, x, y, count, dtype);
}

int mg_gelu_erf(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return activate("gelu_erf", &KernelTable::gelu_erf, x, y, count, dtype);
}

int mg_swiglu(const void* x, void* y, int64_t rows, int64_t H, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("swiglu: dtype must be float32, bfloat16 or float16");
  if (rows < 0 || H < 1) return fail("swiglu: %lld rows of %lld elements", (long long)rows, (long long)H);
  if (rows == 0) return MG_OK;
  if (!x || !y) return fail("swiglu: x or y is NULL");
  return kernels().swiglu(x, y, rows, H, dtype);
}

}  // extern "C"

namespace {

int run_silu(const OpCall& call) {
  const Tensor& x = call.input(0);
  return mg_silu(x.data, call.output(0).data, x.elements(), common_float({x}));
}

int run_gelu(const OpCall& call) {
  const Tensor& x = call.input(0);
  return mg_gelu(x.data, call.output(0).data, x.elements(), common_float({x}));
}

int run_gelu_ext(const OpCall& call) {
  const Tensor& x = call.input(0);
  const int64_t approximate = call.scalar<int64_t>(1);
  require(approximate == 0 || approximate == 1, "approximate must be none or tanh");
  return (approximate == 0 ? mg_gelu_erf : mg_gelu)(x.data, call.output(0).data, x.elements(), common_float({x}));
}

void infer_swiglu(const OpCall& call) {
  Shape shape = call.input(0).shape;
  shape.dims[shape.ndim - 1] /= 2;
  call.output(0).set_shape(shape);
}

int run_swiglu(const OpCall& call) {
  const Tensor& x = call.input(0);  // (..., 2H)
  require(x.shape.axis(call.scalar<int64_t>(1)) == x.shape.ndim - 1 && x.shape.last() % 2 == 0,
          "dim must be the last axis, of even size");
  return mg_swiglu(x.data, call.output(0).data, x.shape.rows(), x.shape.last() / 2, common_float({x}));
}

}  // namespace

MINDGEN_OP(SiLU, .signature = "x -> y", .infer = infer_like_first, .run = run_silu)
MINDGEN_OP(GeLU, .signature = "x -> y", .infer = infer_like_first, .run = run_gelu, .in_place = {0, 0})
MINDGEN_OP(GeluExt, .signature = "x, approximate: int -> y", .infer = infer_like_first, .run = run_gelu_ext,
           .in_place = {0, 0})
MINDGEN_OP(Swiglu, .signature = "x, dim: int -> y", .infer = infer_swiglu, .run = run_swiglu)
