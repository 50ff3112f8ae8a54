// Elementwise arithmetic and conversions: arguments are checked and shapes simplified here.
#include "dispatch.h"
#include "op.h"

using namespace mindgen;

namespace {

constexpr int kMaxDimensions = 16;

bool is_dtype(mg_dtype dtype) { return dtype >= MG_FLOAT32 && dtype <= MG_UINT64; }

// The same elements in fewer, longer dimensions, at least one.
struct Broadcast {
  int ndim = 0;
  int64_t shape[kMaxDimensions];
  int64_t a_strides[kMaxDimensions];
  int64_t b_strides[kMaxDimensions];

  void add_dimension(int64_t size, int64_t a_stride, int64_t b_stride) {
    if (size == 1 && ndim > 0) return;
    const int last = ndim - 1;
    const bool same_walk = ndim > 0 && a_strides[last] == a_stride * size && b_strides[last] == b_stride * size;
    const int to = same_walk || (ndim > 0 && shape[last] == 1) ? last : ndim++;
    shape[to] = same_walk ? shape[to] * size : size;
    a_strides[to] = a_stride;
    b_strides[to] = b_stride;
  }
};

using Kernel = decltype(mg_add);

int run(const char* name, Kernel* KernelTable::*kernel, const void* a, const void* b, void* y, int ndim,
        const int64_t* shape, const int64_t* a_strides, const int64_t* b_strides, mg_dtype dtype) {
  if (!is_dtype(dtype)) return fail("%s: there is no dtype %d", name, dtype);
  if (ndim < 0 || ndim > kMaxDimensions) return fail("%s: ndim %d is not within 0..%d", name, ndim, kMaxDimensions);
  if (ndim > 0 && (!shape || !a_strides || !b_strides)) return fail("%s: shape or strides is NULL", name);
  int64_t count = 1;
  for (int i = 0; i < ndim; i++) {
    if (shape[i] < 0) return fail("%s: dimension %d has size %lld", name, i, (long long)shape[i]);
    count *= shape[i];
  }
  if (count == 0) return MG_OK;
  if (!a || !b || !y) return fail("%s: a, b or y is NULL", name);
  Broadcast simple;
  simple.add_dimension(1, 0, 0);
  for (int i = 0; i < ndim; i++) simple.add_dimension(shape[i], a_strides[i], b_strides[i]);
  return (kernels().*kernel)(a, b, y, simple.ndim, simple.shape, simple.a_strides, simple.b_strides, dtype);
}

}  // namespace

extern "C" {

int mg_add(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
           const int64_t* b_strides, mg_dtype dtype) {
  if (dtype == MG_BOOL) return fail("add: dtype must be a float or an integer");
  return run("add", &KernelTable::add, a, b, y, ndim, shape, a_strides, b_strides, dtype);
}

int mg_mul(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
           const int64_t* b_strides, mg_dtype dtype) {
  return run("mul", &KernelTable::mul, a, b, y, ndim, shape, a_strides, b_strides, dtype);
}

int mg_sum(const void* const* parts, int num_parts, void* y, int64_t count, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("sum: dtype must be float32, bfloat16 or float16");
  if (num_parts < 1 || count < 0) return fail("sum: %d parts of %lld elements", num_parts, (long long)count);
  if (count == 0) return MG_OK;
  if (!parts || !y) return fail("sum: parts or y is NULL");
  for (int part = 0; part < num_parts; part++) {
    if (!parts[part]) return fail("sum: part %d is NULL", part);
  }
  return kernels().sum(parts, num_parts, y, count, dtype);
}

int mg_cast(const void* x, mg_dtype from, void* y, mg_dtype to, int64_t count) {
  if (!is_dtype(from) || !is_dtype(to)) return fail("cast: there is no cast from dtype %d to %d", from, to);
  if (count < 0) return fail("cast: %lld elements", (long long)count);
  if (count == 0) return MG_OK;
  if (!x || !y) return fail("cast: x or y is NULL");
  return kernels().cast(x, from, y, to, count);
}

int mg_scale_transpose(const void* x, int64_t x_step, mg_dtype from, void* y, int64_t y_step, mg_dtype to,
                       int64_t rows, int64_t columns, float scale) {
  if (!is_compute_dtype(from) || !is_compute_dtype(to)) {
    return fail("scale_transpose: from dtype %d to %d, not between floats of up to 32 bits", from, to);
  }
  if (rows < 0 || columns < 0 || x_step < columns || y_step < rows) {
    return fail("scale_transpose: x (%lld, %lld) with steps of %lld and %lld", (long long)rows, (long long)columns,
                (long long)x_step, (long long)y_step);
  }
  if (rows == 0 || columns == 0) return MG_OK;
  if (!x || !y) return fail("scale_transpose: x or y is NULL");
  return kernels().scale_transpose(x, x_step, from, y, y_step, to, rows, columns, scale);
}

int mg_scale_transpose_all(const mg_scale_transpose_call* calls, int64_t count) {
  if (count < 0 || (count > 0 && !calls)) return fail("scale_transpose_all: %lld calls", (long long)count);
  for (int64_t i = 0; i < count; i++) {
    const mg_scale_transpose_call& each = calls[i];
    if (mg_scale_transpose(each.x, each.x_step, static_cast<mg_dtype>(each.from), each.y, each.y_step,
                           static_cast<mg_dtype>(each.to), each.rows, each.columns, each.scale) != MG_OK) {
      return MG_ERROR;
    }
  }
  return MG_OK;
}

}  // extern "C"

namespace {

void infer_broadcast(const OpCall& call) {
  const Shape &a = call.input(0).shape, &b = call.input(1).shape;
  Shape shape = a.ndim >= b.ndim ? a : b;
  const Shape& other = a.ndim >= b.ndim ? b : a;
  for (int axis = 1; axis <= other.ndim; axis++) {
    int64_t& size = shape.dims[shape.ndim - axis];
    const int64_t other_size = other.dims[other.ndim - axis];
    require(size == other_size || size == 1 || other_size == 1, "the shapes do not broadcast");
    if (size == 1) size = other_size;
  }
  call.output(0).set_shape(shape);
}

// x in the output's dtype, in `memory` when it has another: MindSpore leaves its implicit conversions to the plugin.
const void* converted(const Tensor& x, mg_dtype to, std::vector<char>& memory) {
  const mg_dtype from = common_dtype({x});
  if (from == to) return x.data;
  memory.resize(x.elements() * item_size(to));
  require(mg_cast(x.data, from, memory.data(), to, x.elements()) == MG_OK, mg_last_error());
  return memory.data();
}

int run_binary(const OpCall& call, Kernel* kernel) {
  const Tensor &a = call.input(0), &b = call.input(1), &y = call.output(0);
  const mg_dtype dtype = common_dtype({y});
  std::vector<char> a_memory, b_memory;
  const std::vector<int64_t> a_strides = broadcast_strides(a.shape, a.shape.ndim, y.shape.ndim);
  const std::vector<int64_t> b_strides = broadcast_strides(b.shape, b.shape.ndim, y.shape.ndim);
  return kernel(converted(a, dtype, a_memory), converted(b, dtype, b_memory), y.data, y.shape.ndim, y.shape.dims,
                a_strides.data(), b_strides.data(), dtype);
}

int run_add(const OpCall& call) { return run_binary(call, mg_add); }
int run_mul(const OpCall& call) { return run_binary(call, mg_mul); }

int run_cast(const OpCall& call) {
  const Tensor &x = call.input(0), &y = call.output(0);
  return mg_cast(x.data, common_dtype({x}), y.data, common_dtype({y}), x.elements());
}

}  // namespace

MINDGEN_OP(Add, .signature = "a, b -> y", .infer = infer_broadcast, .run = run_add)
MINDGEN_OP(Mul, .signature = "a, b -> y", .infer = infer_broadcast, .run = run_mul)
MINDGEN_OP(Cast, .signature = "x, dtype?: int -> y", .infer = infer_like_first, .run = run_cast)
