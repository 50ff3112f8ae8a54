// Elementwise arithmetic, and ops that only move bytes.
#include "op_call.h"

using mindgen::OpCall;

// The strides, in elements, of input i seen with the output's shape: 0 along axes where it repeats.
static std::vector<int64_t> broadcast_strides(const OpCall& call, int i) {
  const int out = call.count - 1, missing = call.ndims[out] - call.ndims[i];
  std::vector<int64_t> strides(call.ndims[out], 0);
  int64_t stride = 1;
  for (int axis = call.ndims[i] - 1; axis >= 0; --axis) {
    const int64_t size = call.shapes[i][axis];
    strides[axis + missing] = size == 1 ? 0 : stride;
    stride *= size;
  }
  return strides;
}

// a, b, y
template <typename Kernel>
static int binary(const OpCall& call, Kernel kernel) {
  call.require_count(3);
  const std::vector<int64_t> a = broadcast_strides(call, 0), b = broadcast_strides(call, 1);
  return kernel(call.params[0], call.params[1], call.params[2], call.ndims[2], call.shapes[2], a.data(), b.data(),
                call.dtype({0, 1, 2}));
}

MINDGEN_OP(Add) { return binary(call, mg_add); }
MINDGEN_OP(Mul) { return binary(call, mg_mul); }

// x, ([dtype] outside graphs), y
MINDGEN_OP(Cast) {
  const int out = call.count - 1;
  return mg_cast(call.params[0], call.dtype({0}), call.output(), call.dtype({out}), call.elements(0));
}

// x, [shape], y
MINDGEN_OP(Reshape) {
  return mg_copy(call.params[0], call.output(), call.elements(0) * call.item_size(0));
}

// x, indices, [axis, batch_dims], y
MINDGEN_OP(Gather) {
  call.require_count(5);
  call.require(call.scalar<int64_t>(3) == 0, "batch_dims must be 0");
  const int axis = call.axis(0, call.scalar<int64_t>(2));
  const mg_dtype index_dtype = call.dtype({1});
  call.require(index_dtype == MG_INT32 || index_dtype == MG_INT64, "indices must be int32 or int64");
  return mg_gather(call.params[0], call.params[1], index_dtype, call.output(), call.elements(0, 0, axis), call.dim(0, axis),
                   call.elements(1), call.elements(0, axis + 1, call.ndims[0]) * call.item_size(0));
}

// The bytes that the parts in [first, first + num_parts) have from the axis on.
static std::vector<int64_t> inner_bytes(const OpCall& call, int first, int num_parts, int axis) {
  std::vector<int64_t> inner(num_parts);
  for (int p = 0; p < num_parts; ++p)
    inner[p] = call.elements(first + p, axis, call.ndims[first + p]) * call.item_size(first + p);
  return inner;
}

// parts..., [axis], y
MINDGEN_OP(Concat) {
  const int num_parts = call.count - 2;
  const int axis = call.axis(0, call.scalar<int64_t>(num_parts));
  const std::vector<int64_t> inner = inner_bytes(call, 0, num_parts, axis);
  return mg_concat(call.params, inner.data(), num_parts, call.output(), call.elements(0, 0, axis));
}

static int split(const OpCall& call, int64_t axis_value) {
  const int first = 3, num_parts = call.count - first, axis = call.axis(0, axis_value);
  const std::vector<int64_t> inner = inner_bytes(call, first, num_parts, axis);
  return mg_split(call.params[0], call.params + first, inner.data(), num_parts, call.elements(0, 0, axis));
}

// x, [axis, output_num], parts...
MINDGEN_OP(Split) { return split(call, call.scalar<int64_t>(1)); }

// x, [sizes, axis], parts...
MINDGEN_OP(SplitWithSize) { return split(call, call.scalar<int64_t>(2)); }
