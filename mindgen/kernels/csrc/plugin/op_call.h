// One call as MindSpore's op plugin makes it: inputs, then the primitive's scalars, then outputs, all untyped.
#pragma once
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "mindgen_kernels.h"

namespace mindgen {

// A call that the library does not serve; its message says what would be.
struct Refused : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct OpCall {
  int count;
  void** params;
  int* ndims;
  int64_t** shapes;
  const char** dtypes;
  std::vector<int> copied;  // the inputs that are copies, and not the caller's memory

  bool absent(int i) const { return params[i] == nullptr || std::strcmp(dtypes[i], "none") == 0; }
  int64_t dim(int i, int axis) const { return shapes[i][axis < 0 ? axis + ndims[i] : axis]; }
  int64_t last(int i) const { return ndims[i] == 0 ? 1 : dim(i, -1); }

  // The number of elements in axes [from, to).
  int64_t elements(int i, int from, int to) const {
    int64_t product = 1;
    for (int axis = from; axis < to; ++axis) product *= shapes[i][axis];
    return product;
  }
  int64_t elements(int i) const { return elements(i, 0, ndims[i]); }
  // What is left when the last axis is a row.
  int64_t rows(int i) const { return elements(i, 0, ndims[i] - 1); }

  template <typename T>
  T scalar(int i) const {
    require(params[i] != nullptr, "argument " + std::to_string(i) + " must not be None");
    return *static_cast<const T*>(params[i]);
  }
  template <typename T>
  const T* integers(int i, const char* dtype) const {
    require(std::strcmp(dtypes[i], dtype) == 0,
            "input " + std::to_string(i) + " must be " + dtype + ", not " + dtypes[i]);
    return static_cast<const T*>(params[i]);
  }
  void* at(int i, int64_t byte) const { return static_cast<char*>(params[i]) + byte; }
  void* output(int from_end = 1) const { return params[count - from_end]; }

  void require(bool served, const std::string& message) const {
    if (!served) throw Refused(message);
  }
  void require_absent(int i, const char* name) const {
    require(absent(i), std::string(name) + " is not served, pass None");
  }
  void require_count(int expected) const {
    require(count == expected,
            "expected " + std::to_string(expected) + " parameters, MindSpore passed " + std::to_string(count) +
                "; this MindSpore version is not served, use 2.9.0 or 2.10.0");
  }
  // The dtype that these parameters share.
  mg_dtype dtype(std::initializer_list<int> same) const;
  mg_dtype float_dtype(std::initializer_list<int> same) const;
  // Of any MindSpore dtype.
  int64_t item_size(int i) const;
  int axis(int i, int64_t value) const {
    require(value >= -ndims[i] && value < ndims[i], "axis " + std::to_string(value) + " is out of range");
    return static_cast<int>(value < 0 ? value + ndims[i] : value);
  }
  // The strides, in elements, of the first `axes` axes of input i along the first `out_axes` axes of the output that
  // they are broadcast to: 0 where it repeats.
  std::vector<int64_t> broadcast_strides(int i, int axes, int out_axes) const;
};

// What an op does once its inputs are contiguous; returns MG_OK or MG_ERROR, or throws Refused.
using OpBody = int(const OpCall& call);

// Makes an op known to MindSpore and to the executor under this name.
struct RegisteredOp {
  RegisteredOp(const char* name, OpBody* body);
};

// NULL when no op has this name.
OpBody* find_body(const std::string& name);

class InputInfo;

// Runs an op's body and returns what MindSpore takes for success or failure. Why a call was refused becomes the
// library's last error and one line on stderr.
int serve(const char* op, OpCall call, InputInfo* info, OpBody* body);

}  // namespace mindgen

// Defines the entry point of one op; the body sees the call as `call` and returns MG_OK or MG_ERROR.
#define MINDGEN_OP(Name) MINDGEN_ENTRY_POINT(Name, static_cast<mindgen::InputInfo*>(extra))

// An entry point for ops.Custom, whose last argument is something else.
#define MINDGEN_CUSTOM_OP(Name) MINDGEN_ENTRY_POINT(Name, ((void)extra, nullptr))

#define MINDGEN_ENTRY_POINT(Name, info)                                                                            \
  static int Name##_body(const mindgen::OpCall& call);                                                             \
  static const mindgen::RegisteredOp Name##_registered(#Name, Name##_body);                                        \
  extern "C" __attribute__((visibility("default"))) int Name(int count, void** params, int* ndims,                 \
                                                             int64_t** shapes, const char** dtypes, void*,         \
                                                             void* extra) {                                        \
    return mindgen::serve(#Name, mindgen::OpCall{count, params, ndims, shapes, dtypes, {}}, info, Name##_body);    \
  }                                                                                                                \
  static int Name##_body(const mindgen::OpCall& call)
