#include "tensor.h"

#include <algorithm>
#include <cstring>

namespace mindgen {
namespace {

struct DtypeInfo {
  const char* name;
  int64_t size;
};

// In the order of mg_dtype.
const DtypeInfo dtypes[] = {{"float32", 4}, {"bfloat16", 2}, {"float16", 2},   {"float64", 8},  {"int32", 4},
                            {"int64", 8},   {"bool", 1},     {"int8", 1},      {"int16", 2},    {"uint8", 1},
                            {"uint16", 2},  {"uint32", 4},   {"uint64", 8},    {"complex64", 8}, {"complex128", 16}};

}  // namespace

int64_t item_size(mg_dtype dtype) { return dtypes[dtype].size; }
const char* dtype_name(mg_dtype dtype) { return dtypes[dtype].name; }

mg_dtype find_dtype(const char* name) {
  for (int dtype = MG_FLOAT32; dtype <= MG_COMPLEX128; dtype++) {
    if (std::strcmp(dtypes[dtype].name, name) == 0) return static_cast<mg_dtype>(dtype);
  }
  throw Refused(std::string("dtype ") + name + " is not served");
}

Shape::Shape(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes) dims[ndim++] = size;
}

int64_t Shape::elements(int first, int end) const {
  int64_t product = 1;
  for (int axis = first; axis < end; axis++) product *= dims[axis];
  return product;
}

int Shape::axis(int64_t value) const {
  require(value >= -ndim && value < ndim, "axis " + std::to_string(value) + " is out of range");
  return static_cast<int>(value < 0 ? value + ndim : value);
}

bool operator==(const Shape& a, const Shape& b) {
  return a.ndim == b.ndim && std::equal(a.dims, a.dims + a.ndim, b.dims);
}

std::vector<int64_t> broadcast_strides(const Shape& x, int axes, int out_axes) {
  std::vector<int64_t> strides(out_axes, 0);
  int64_t stride = x.elements(axes);
  for (int axis = axes - 1; axis >= 0; --axis) {
    strides[axis + out_axes - axes] = x.dims[axis] == 1 ? 0 : stride;
    stride *= x.dims[axis];
  }
  return strides;
}

}  // namespace mindgen
