// Rows of a table at given places.
#include "bytes.h"
#include "op.h"

using namespace mindgen;

namespace {

template <class Index>
int gather_rows(const void* x, const Index* indices, void* y, int64_t outer, int64_t size, int64_t num_indices,
                int64_t inner) {
  for (int64_t i = 0; i < num_indices; i++) {
    if (indices[i] < -size || indices[i] >= size) {
      return fail("gather: index %lld is outside an axis of %lld", (long long)indices[i], (long long)size);
    }
  }
  for_rows(outer * num_indices, inner / kElementBytes, [&](int64_t row) {
    const int64_t index = indices[row % num_indices];
    const int64_t from = row / num_indices * size + (index < 0 ? index + size : index);
    memcpy(bytes_at(y, row * inner), bytes_at(x, from * inner), inner);
  });
  return MG_OK;
}

template <class Id>
int look_rows_up(const void* table, const Id* ids, void* y, int64_t size, int64_t num_ids, int64_t inner,
                 int64_t first_id) {
  for_rows(num_ids, inner / kElementBytes, [&](int64_t row) {
    const int64_t place = ids[row] - first_id;
    if (place >= 0 && place < size) {
      memcpy(bytes_at(y, row * inner), bytes_at(table, place * inner), inner);
    } else {
      memset(bytes_at(y, row * inner), 0, inner);
    }
  });
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_gather(const void* x, const void* indices, mg_dtype index_dtype, void* y, int64_t outer, int64_t size,
              int64_t num_indices, int64_t inner) {
  if (outer < 0 || size < 0 || num_indices < 0 || inner < 0) {
    return fail("gather: negative size: outer %lld, size %lld, num_indices %lld, inner %lld", (long long)outer,
                (long long)size, (long long)num_indices, (long long)inner);
  }
  if (index_dtype != MG_INT32 && index_dtype != MG_INT64) return fail("gather: indices must be int32 or int64");
  if (outer == 0 || num_indices == 0 || inner == 0) return MG_OK;
  if (!indices || !y || (!x && size > 0)) return fail("gather: x, indices or y is NULL");
  if (index_dtype == MG_INT32) {
    return gather_rows(x, static_cast<const int32_t*>(indices), y, outer, size, num_indices, inner);
  }
  return gather_rows(x, static_cast<const int64_t*>(indices), y, outer, size, num_indices, inner);
}

int mg_embedding_lookup(const void* table, const void* ids, mg_dtype id_dtype, void* y, int64_t size, int64_t num_ids,
                        int64_t inner, int64_t first_id) {
  if (size < 0 || num_ids < 0 || inner < 0) {
    return fail("embedding_lookup: negative size: size %lld, num_ids %lld, inner %lld", (long long)size,
                (long long)num_ids, (long long)inner);
  }
  if (id_dtype != MG_INT32 && id_dtype != MG_INT64) return fail("embedding_lookup: ids must be int32 or int64");
  if (num_ids == 0 || inner == 0) return MG_OK;
  if (!ids || !y || (!table && size > 0)) return fail("embedding_lookup: table, ids or y is NULL");
  if (id_dtype == MG_INT32) {
    return look_rows_up(table, static_cast<const int32_t*>(ids), y, size, num_ids, inner, first_id);
  }
  return look_rows_up(table, static_cast<const int64_t*>(ids), y, size, num_ids, inner, first_id);
}

}  // extern "C"

namespace {

// How many of the first axes x and indices have in common.
int batch_axes(const OpCall& call) {
  const int64_t given = call.scalar<int64_t>(3);
  return static_cast<int>(given < 0 ? given + call.input(1).shape.ndim : given);
}

// x (batch..., outer..., size, inner...), indices (batch..., n...) -> (batch..., outer..., n..., inner...)
void infer_gather(const OpCall& call) {
  const Shape &x = call.input(0).shape, &indices = call.input(1).shape;
  const int axis = x.axis(call.scalar<int64_t>(2)), batch_dims = batch_axes(call);
  require(x.ndim + indices.ndim - 1 - batch_dims <= MG_MAX_AXES, "too many axes");
  Shape shape;
  for (int i = 0; i < axis; i++) shape.dims[shape.ndim++] = x.dims[i];
  for (int i = batch_dims; i < indices.ndim; i++) shape.dims[shape.ndim++] = indices.dims[i];
  for (int i = axis + 1; i < x.ndim; i++) shape.dims[shape.ndim++] = x.dims[i];
  call.output(0).set_shape(shape);
}

int run_gather(const OpCall& call) {
  const Tensor &x = call.input(0), &indices = call.input(1), &y = call.output(0);
  const int axis = x.shape.axis(call.scalar<int64_t>(2)), batch_dims = batch_axes(call);
  require(batch_dims >= 0 && batch_dims <= indices.shape.ndim && batch_dims <= axis,
          "batch_dims " + std::to_string(call.scalar<int64_t>(3)) + " must be within 0..axis");
  const mg_dtype index_dtype = common_dtype({indices});
  require(index_dtype == MG_INT32 || index_dtype == MG_INT64, "indices must be int32 or int64");
  const int64_t outer = x.shape.elements(batch_dims, axis), size = x.shape.dim(axis);
  const int64_t num_indices = indices.shape.elements(batch_dims);
  const int64_t inner = x.shape.elements(axis + 1) * item_size(x.dtype);
  for (int64_t batch = 0; batch < x.shape.elements(0, batch_dims); ++batch) {
    if (mg_gather(x.at(batch * outer * size * inner), indices.at(batch * num_indices * item_size(index_dtype)),
                  index_dtype, y.at(batch * outer * num_indices * inner), outer, size, num_indices, inner) != MG_OK) {
      return MG_ERROR;
    }
  }
  return MG_OK;
}

void infer_embedding_lookup(const OpCall& call) {
  const Shape &table = call.input(0).shape, &ids = call.input(1).shape;
  require(table.ndim + ids.ndim - 1 <= MG_MAX_AXES, "too many axes");
  Shape shape = ids;
  for (int i = 1; i < table.ndim; i++) shape.dims[shape.ndim++] = table.dims[i];
  call.output(0).set_shape(shape);
}

// table (size, inner...), ids (n...)
int run_embedding_lookup(const OpCall& call) {
  const Tensor &table = call.input(0), &ids = call.input(1);
  return mg_embedding_lookup(table.data, ids.data, common_dtype({ids}), call.output(0).data, table.shape.dim(0),
                             ids.elements(), table.shape.elements(1) * item_size(table.dtype),
                             call.scalar<int64_t>(2));
}

Cost gather_cost(const OpCall& call) { return {2 * call.output(0).bytes() + call.input(1).bytes(), 0}; }

}  // namespace

MINDGEN_OP(Gather, .signature = "x, indices, axis: int, batch_dims: int -> y", .infer = infer_gather, .run = run_gather,
           .cost = gather_cost)
MINDGEN_OP(EmbeddingLookup, .signature = "table, ids, first_id: int -> y", .infer = infer_embedding_lookup,
           .run = run_embedding_lookup, .cost = gather_cost)
