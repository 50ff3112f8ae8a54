// The same bytes elsewhere, or under another shape, and what can be said of them as they pass.
#include <atomic>

#include "bytes.h"
#include "dispatch.h"
#include "fused.h"

using namespace mindgen;

namespace {

constexpr int64_t kPieceBytes = kTaskElements * kElementBytes;

// Whether body(start, bytes) holds for every piece.
template <class Body>
bool holds_for_pieces(int64_t bytes, const Body& body) {
  std::atomic<bool> holds{true};
  for_rows((bytes + kPieceBytes - 1) / kPieceBytes, kTaskElements, [&](int64_t i) {
    const int64_t start = i * kPieceBytes;
    if (!body(start, bytes - start < kPieceBytes ? bytes - start : kPieceBytes)) holds = false;
  });
  return holds;
}

}  // namespace

extern "C" {

int mg_copy(const void* x, void* y, int64_t bytes) {
  if (bytes < 0) return fail("copy: %lld bytes", (long long)bytes);
  if (bytes == 0 || x == y) return MG_OK;
  if (!x || !y) return fail("copy: x or y is NULL");
  holds_for_pieces(bytes, [&](int64_t start, int64_t size) {
    memcpy(bytes_at(y, start), bytes_at(x, start), size);
    return true;
  });
  return MG_OK;
}

int mg_compare(const void* x, const void* y, int64_t bytes, int32_t* same) {
  if (bytes < 0) return fail("compare: %lld bytes", (long long)bytes);
  if (!same || (bytes > 0 && (!x || !y))) return fail("compare: x, y or same is NULL");
  *same = holds_for_pieces(
      bytes, [&](int64_t start, int64_t size) { return memcmp(bytes_at(x, start), bytes_at(y, start), size) == 0; });
  return MG_OK;
}

int mg_are_finite(const void* x, int64_t elements, mg_dtype dtype, int32_t* finite) {
  if (elements < 0) return fail("are_finite: %lld elements", (long long)elements);
  if (!finite || (elements > 0 && !x)) return fail("are_finite: x or finite is NULL");
  if (!is_compute_dtype(dtype)) return fail("are_finite: dtype %d is no type of floats", (int)dtype);
  return kernels().are_finite(x, elements, dtype, finite);
}

int mg_copy_finite(const void* x, void* y, int64_t elements, mg_dtype dtype, int32_t* finite) {
  if (elements < 0) return fail("copy_finite: %lld elements", (long long)elements);
  if (!finite || (elements > 0 && (!x || !y))) return fail("copy_finite: x, y or finite is NULL");
  if (!is_compute_dtype(dtype)) return fail("copy_finite: dtype %d is no type of floats", (int)dtype);
  return kernels().copy_finite(x, y, elements, dtype, finite);
}

int mg_copy_all(const mg_copy_call* calls, int64_t count) {
  if (count < 0 || (count > 0 && !calls)) return fail("copy_all: %lld copies", (long long)count);
  int64_t bytes = 0;
  for (int64_t i = 0; i < count; i++) {
    if (calls[i].bytes < 0 || (calls[i].bytes > 0 && !calls[i].y)) {
      return fail("copy_all: copy %lld has %lld bytes, or y is NULL", (long long)i, (long long)calls[i].bytes);
    }
    bytes += calls[i].bytes;
  }
  parallel_for(count, threads_for_elements(bytes / kElementBytes), [&](int64_t i) {
    if (calls[i].x) {
      memcpy(calls[i].y, calls[i].x, calls[i].bytes);
    } else {
      memset(calls[i].y, 0, calls[i].bytes);
    }
  });
  return MG_OK;
}

}  // extern "C"

namespace {

// A view whose first axis is the input's may be as strided.
void infer_reshape(const OpCall& call) {
  const Tensor& x = call.input(0);
  const std::vector<int64_t>& sizes = call.scalar<std::vector<int64_t>>(1);
  require(sizes.size() <= MG_MAX_AXES, "too many axes");
  Shape shape;
  int64_t known = 1;
  for (int64_t size : sizes) {
    shape.dims[shape.ndim++] = size;
    if (size != -1) known *= size;
  }
  for (int axis = 0; axis < shape.ndim; axis++) {
    if (shape.dims[axis] == -1) shape.dims[axis] = known > 0 ? x.elements() / known : 0;
  }
  require(shape.elements() == x.elements(), "the number of elements would change");
  Tensor& view = call.output(0);
  view.set_shape(shape);
  view.offset = 0;
  if (shape.first() == x.shape.first()) view.step = x.step;
}

int run_reshape(const OpCall& call) {
  const Tensor& x = call.input(0);
  return mg_copy(x.data, call.output(0).data, x.bytes());
}

int run_contiguous(const OpCall& call) {
  const Tensor &x = call.input(0), &y = call.output(0);
  const int64_t item = item_size(x.dtype), width = x.shape.elements(1) * item, step = x.step * item;
  if (width == step) return mg_copy(x.data, y.data, y.bytes());
  for (int64_t row = 0; row < x.shape.first(); row++) {
    if (mg_copy(x.at(row * step), y.at(row * width), width) != MG_OK) return MG_ERROR;
  }
  return MG_OK;
}

}  // namespace

MINDGEN_OP(Reshape, .signature = "x, shape?: ints -> y", .infer = infer_reshape, .run = run_reshape, .is_view = true,
           .strided_inputs = 1)

namespace mindgen::fused {

const Op contiguous = {.name = "Contiguous", .signature = "x -> y", .infer = infer_like_first, .run = run_contiguous,
                       .strided_inputs = 1};

}  // namespace mindgen::fused
