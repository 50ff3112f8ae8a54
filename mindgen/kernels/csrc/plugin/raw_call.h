// One call as MindSpore's op plugin makes it: inputs, then the primitive's scalars, then outputs, all untyped.
#pragma once
#include <cstring>
#include <string>
#include <vector>

#include "tensor.h"

namespace mindgen {

struct RawCall {
  int count;
  void** params;
  int* ndims;
  int64_t** shapes;
  const char** dtypes;
  std::vector<int> copied{};  // the inputs that are copies, and not the caller's memory

  bool absent(int i) const { return params[i] == nullptr || std::strcmp(dtypes[i], "none") == 0; }
  int64_t elements(int i) const {
    int64_t product = 1;
    for (int axis = 0; axis < ndims[i]; ++axis) product *= shapes[i][axis];
    return product;
  }
  int64_t item_size(int i) const { return mindgen::item_size(find_dtype(dtypes[i])); }
};

}  // namespace mindgen
