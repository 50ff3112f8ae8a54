// Tensors side by side along an axis, and back.
#include "bytes.h"
#include "op.h"

using namespace mindgen;

namespace {

// The sum of inner, or -1 after an error.
int64_t check_parts(const char* name, const void* whole, const void* const* parts, const int64_t* inner,
                    int num_parts, int64_t outer) {
  if (num_parts < 1 || outer < 0 || !parts || !inner) {
    fail("%s: %d parts of %lld rows, or a list is NULL", name, num_parts, (long long)outer);
    return -1;
  }
  int64_t width = 0;
  for (int i = 0; i < num_parts; i++) {
    if (inner[i] < 0 || (inner[i] > 0 && outer > 0 && (!parts[i] || !whole))) {
      fail("%s: part %d has %lld bytes per row, or a buffer is NULL", name, i, (long long)inner[i]);
      return -1;
    }
    width += inner[i];
  }
  return width;
}

}  // namespace

extern "C" {

int mg_concat(const void* const* parts, const int64_t* inner, int num_parts, void* y, int64_t outer) {
  const int64_t width = check_parts("concat", y, parts, inner, num_parts, outer);
  if (width < 0) return MG_ERROR;
  for_rows(outer, width / kElementBytes, [&](int64_t row) {
    int64_t offset = row * width;
    for (int i = 0; i < num_parts; offset += inner[i++]) {
      if (inner[i] > 0) memcpy(bytes_at(y, offset), bytes_at(parts[i], row * inner[i]), inner[i]);
    }
  });
  return MG_OK;
}

int mg_split(const void* x, void* const* parts, const int64_t* inner, int num_parts, int64_t outer) {
  const int64_t width = check_parts("split", x, parts, inner, num_parts, outer);
  if (width < 0) return MG_ERROR;
  for_rows(outer, width / kElementBytes, [&](int64_t row) {
    int64_t offset = row * width;
    for (int i = 0; i < num_parts; offset += inner[i++]) {
      if (inner[i] > 0) memcpy(bytes_at(parts[i], row * inner[i]), bytes_at(x, offset), inner[i]);
    }
  });
  return MG_OK;
}

}  // extern "C"

namespace {

// The bytes that a part has from the axis on.
int64_t inner_bytes(const Tensor& part, int axis) { return part.shape.elements(axis) * item_size(part.dtype); }

void infer_concat(const OpCall& call) {
  const int num_parts = call.num_inputs() - 1;
  Shape shape = call.input(0).shape;
  const int axis = shape.axis(call.scalar<int64_t>(num_parts));
  for (int part = 1; part < num_parts; part++) shape.dims[axis] += call.input(part).shape.dims[axis];
  call.output(0).set_shape(shape);
}

int run_concat(const OpCall& call) {
  const int num_parts = call.num_inputs() - 1;
  const Shape& first = call.input(0).shape;
  const int axis = first.axis(call.scalar<int64_t>(num_parts));
  std::vector<const void*> parts(num_parts);
  std::vector<int64_t> inner(num_parts);
  for (int p = 0; p < num_parts; p++) {
    parts[p] = call.input(p).data, inner[p] = inner_bytes(call.input(p), axis);
  }
  return mg_concat(parts.data(), inner.data(), num_parts, call.output(0).data, first.elements(0, axis));
}

// The parts along an axis, each so long: views of x when the axis is one of the first two.
void infer_parts(const OpCall& call, int axis, const std::vector<int64_t>& sizes) {
  const Tensor& x = call.input(0);
  require(axis <= 1, "views along axis " + std::to_string(axis) + " are not served");
  require(static_cast<int>(sizes.size()) == call.num_outputs(), "there is an output for each part");
  const int64_t stride = axis == 0 ? x.step : x.shape.elements(2);
  int64_t start = 0;
  for (size_t part = 0; part < sizes.size(); part++) {
    Tensor& view = call.output(static_cast<int>(part));
    view.shape = x.shape;
    view.shape.dims[axis] = sizes[part];
    view.step = x.step;
    view.offset = start * stride * item_size(x.dtype);
    start += sizes[part];
  }
  require(start == x.shape.dims[axis], "the parts do not add up to the axis");
}

int run_parts(const OpCall& call, int axis) {
  std::vector<void*> parts(call.num_outputs());
  std::vector<int64_t> inner(call.num_outputs());
  for (int p = 0; p < call.num_outputs(); p++) {
    parts[p] = call.output(p).data, inner[p] = inner_bytes(call.output(p), axis);
  }
  return mg_split(call.input(0).data, parts.data(), inner.data(), call.num_outputs(),
                  call.input(0).shape.elements(0, axis));
}

void infer_split(const OpCall& call) {
  const Shape& x = call.input(0).shape;
  const int axis = x.axis(call.scalar<int64_t>(1));
  const int64_t count = call.scalar<int64_t>(2);
  require(count >= 1 && x.dims[axis] % count == 0, "the axis does not split evenly");
  infer_parts(call, axis, std::vector<int64_t>(count, x.dims[axis] / count));
}

int run_split(const OpCall& call) { return run_parts(call, call.input(0).shape.axis(call.scalar<int64_t>(1))); }

void infer_split_with_size(const OpCall& call) {
  infer_parts(call, call.input(0).shape.axis(call.scalar<int64_t>(2)), call.scalar<std::vector<int64_t>>(1));
}

int run_split_with_size(const OpCall& call) {
  return run_parts(call, call.input(0).shape.axis(call.scalar<int64_t>(2)));
}

}  // namespace

MINDGEN_OP(Concat, .signature = "parts..., axis: int -> y", .infer = infer_concat, .run = run_concat)
MINDGEN_OP(Split, .signature = "x, axis: int, count: int -> parts...", .infer = infer_split, .run = run_split,
           .is_view = true, .strided_inputs = 1)
MINDGEN_OP(SplitWithSize, .signature = "x, sizes: ints, axis: int -> parts...", .infer = infer_split_with_size,
           .run = run_split_with_size, .is_view = true, .strided_inputs = 1)
