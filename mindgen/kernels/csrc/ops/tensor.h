// What ops compute with: tensors, and the scalars that tell them how.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <variant>
#include <vector>

#include "mindgen_executor.h"

namespace mindgen {

// What the library does not serve; the message says what it would.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool served, const std::string& message) {
  if (!served) throw Refused(message);
}

int64_t item_size(mg_dtype dtype);
const char* dtype_name(mg_dtype dtype);
// Throws Refused where there is none of that name.
mg_dtype find_dtype(const char* name);

struct Shape {
  int ndim = 0;
  int64_t dims[MG_MAX_AXES] = {};

  Shape() = default;
  Shape(std::initializer_list<int64_t> sizes);
  int64_t dim(int axis) const { return dims[axis < 0 ? axis + ndim : axis]; }
  // The number of elements in axes [first, end).
  int64_t elements(int first, int end) const;
  int64_t elements(int first = 0) const { return elements(first, ndim); }
  int64_t first() const { return ndim > 0 ? dims[0] : 1; }
  int64_t last() const { return ndim > 0 ? dims[ndim - 1] : 1; }
  // How many rows there are when the last axis is one.
  int64_t rows() const { return elements(0, ndim > 0 ? ndim - 1 : 0); }
  // The axis, counted from the front.
  int axis(int64_t value) const;
};

bool operator==(const Shape& a, const Shape& b);
inline bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }

// In elements, of the first `axes` axes of x along the first `out_axes` of the output that they are broadcast to: 0 where
// it repeats.
std::vector<int64_t> broadcast_strides(const Shape& x, int axes, int out_axes);

// The entries of the first axis lie `step` elements apart; each is contiguous.
struct Tensor {
  mg_dtype dtype = MG_FLOAT32;
  Shape shape;
  int64_t step = 0;
  int64_t offset = 0;  // of a view, in bytes from where its tensor begins
  void* data = nullptr;

  int64_t elements() const { return shape.elements(); }
  int64_t bytes() const { return shape.elements() * item_size(dtype); }
  void* at(int64_t byte) const { return static_cast<char*>(data) + byte; }
  void set_shape(const Shape& contiguous) {
    shape = contiguous;
    step = contiguous.elements(1);
  }
};

using Scalar = std::variant<std::monostate, bool, int64_t, float, std::vector<int64_t>>;

}  // namespace mindgen
