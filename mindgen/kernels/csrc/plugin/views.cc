#include "views.h"

#include <algorithm>

namespace mindgen {
namespace {

bool is_contiguous(const RawCall& call, int i, const std::vector<int64_t>& strides) {
  int64_t expected = 1;
  for (int axis = call.ndims[i] - 1; axis >= 0; expected *= call.shapes[i][axis--])
    if (call.shapes[i][axis] != 1 && strides[axis] != expected) return false;
  return true;
}

struct alignas(8) Complex128 {
  char bytes[16];
};

// Writes axes [axis, ndim) of a view to `to` and returns where it ends.
template <typename Element>
Element* copy_axes(const Element* from, const int64_t* shape, const int64_t* strides, int num_axes, Element* to) {
  if (num_axes == 0) {
    *to = *from;
    return to + 1;
  }
  for (int64_t i = 0; i < shape[0]; ++i)
    to = copy_axes(from + i * strides[0], shape + 1, strides + 1, num_axes - 1, to);
  return to;
}

template <typename Element>
void copy_view(const RawCall& call, int i, const void* from, const std::vector<int64_t>& strides, void* to) {
  copy_axes(static_cast<const Element*>(from), call.shapes[i], strides.data(), call.ndims[i],
            static_cast<Element*>(to));
}

}  // namespace

ContiguousInputs::ContiguousInputs(const RawCall& call, InputInfo* info) : call_(call) {
  if (info == nullptr) return;
  const int num_inputs = std::min(call.count, static_cast<int>(info->num_inputs()));
  for (int i = 0; i < num_inputs; ++i) {
    if (call.absent(i)) continue;
    if (const std::optional<TensorLayout> layout = info->layout(i)) replace(i, *layout);
  }
}

void ContiguousInputs::replace(int i, const TensorLayout& layout) {
  if (params_.empty()) {
    params_.assign(call_.params, call_.params + call_.count);
    call_.params = params_.data();
  }
  const int64_t size = call_.item_size(i);
  void* start = static_cast<char*>(call_.params[i]) + static_cast<int64_t>(layout.offset) * size;
  if (is_contiguous(call_, i, layout.strides)) {
    params_[i] = start;
    return;
  }
  copies_.emplace_back(new char[call_.elements(i) * size]);
  params_[i] = copies_.back().get();
  call_.copied.push_back(i);
  switch (size) {
    case 1: return copy_view<uint8_t>(call_, i, start, layout.strides, params_[i]);
    case 2: return copy_view<uint16_t>(call_, i, start, layout.strides, params_[i]);
    case 4: return copy_view<uint32_t>(call_, i, start, layout.strides, params_[i]);
    case 8: return copy_view<uint64_t>(call_, i, start, layout.strides, params_[i]);
    default: return copy_view<Complex128>(call_, i, start, layout.strides, params_[i]);
  }
}

}  // namespace mindgen
