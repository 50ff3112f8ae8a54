// Elementwise arithmetic, and ops that only move bytes or add them up over processes.
#include "op_call.h"

using mindgen::OpCall;

// Input i in y's dtype, in `memory` when it has another: MindSpore leaves its implicit conversions to the plugin.
static const void* in_output_dtype(const OpCall& call, int i, std::vector<char>& memory) {
  const mg_dtype from = call.dtype({i}), to = call.dtype({call.count - 1});
  if (from == to) return call.params[i];
  memory.resize(call.elements(i) * call.item_size(call.count - 1));
  call.require(mg_cast(call.params[i], from, memory.data(), to, call.elements(i)) == MG_OK, mg_last_error());
  return memory.data();
}

// a, b, y
template <typename Kernel>
static int binary(const OpCall& call, Kernel kernel) {
  call.require_count(3);
  std::vector<char> a_memory, b_memory;
  const std::vector<int64_t> a = call.broadcast_strides(0, call.ndims[0], call.ndims[2]);
  const std::vector<int64_t> b = call.broadcast_strides(1, call.ndims[1], call.ndims[2]);
  return kernel(in_output_dtype(call, 0, a_memory), in_output_dtype(call, 1, b_memory), call.params[2], call.ndims[2],
                call.shapes[2], a.data(), b.data(), call.dtype({2}));
}

MINDGEN_OP(Add) { return binary(call, mg_add); }
MINDGEN_OP(Mul) { return binary(call, mg_mul); }

// x, ([dtype] outside graphs), y
MINDGEN_OP(Cast) {
  call.require(call.count == 2 || call.count == 3, "expected x and a dtype");
  const int out = call.count - 1;
  return mg_cast(call.params[0], call.dtype({0}), call.output(), call.dtype({out}), call.elements(0));
}

// x, [shape], y
MINDGEN_OP(Reshape) {
  return mg_copy(call.params[0], call.output(), call.elements(0) * call.item_size(0));
}

// x (batch..., outer..., size, inner...), indices (batch..., n...), [axis of size, number of batch axes], y
MINDGEN_OP(Gather) {
  call.require_count(5);
  const int axis = call.axis(0, call.scalar<int64_t>(2));
  const int64_t given = call.scalar<int64_t>(3), batch_dims = given < 0 ? given + call.ndims[1] : given;
  call.require(batch_dims >= 0 && batch_dims <= call.ndims[1] && batch_dims <= axis,
               "batch_dims " + std::to_string(given) + " must be within 0..axis");
  const mg_dtype index_dtype = call.dtype({1});
  call.require(index_dtype == MG_INT32 || index_dtype == MG_INT64, "indices must be int32 or int64");
  const int64_t outer = call.elements(0, batch_dims, axis), size = call.dim(0, axis);
  const int64_t num_indices = call.elements(1, batch_dims, call.ndims[1]);
  const int64_t inner = call.elements(0, axis + 1, call.ndims[0]) * call.item_size(0);
  for (int64_t batch = 0; batch < call.elements(0, 0, batch_dims); ++batch) {
    const void* x = call.at(0, batch * outer * size * inner);
    const void* indices = call.at(1, batch * num_indices * call.item_size(1));
    void* y = call.at(4, batch * outer * num_indices * inner);
    if (mg_gather(x, indices, index_dtype, y, outer, size, num_indices, inner) != MG_OK) return MG_ERROR;
  }
  return MG_OK;
}

// table (size, inner...), ids (n...), [the table's first id], y
MINDGEN_OP(EmbeddingLookup) {
  call.require_count(4);
  const int64_t inner = call.elements(0, 1, call.ndims[0]) * call.item_size(0);
  return mg_embedding_lookup(call.params[0], call.params[1], call.dtype({1}), call.output(), call.dim(0, 0),
                             call.elements(1), inner, call.scalar<int64_t>(2));
}

// x, y; which group it is, MindSpore does not tell.
MINDGEN_OP(AllReduce) {
  call.require_count(2);
  return mg_all_reduce(mg_group_in_use(), call.params[0], call.output(), call.elements(0), call.float_dtype({0, 1}));
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
