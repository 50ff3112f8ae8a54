// An op of the networks: what a call of it takes, the shapes that it gives, the kernel that it runs, and what that costs.
// Each is written once, for the executor and for MindSpore's op plugin.
#pragma once
#include <functional>

#include "tensor.h"

namespace mindgen {

enum class Kind { kTensor, kBool, kInt, kFloat, kInts, kNone };

// What an op takes and gives, as "x, gamma, bias?, epsilon: float -> y, rstd". Arguments are in MindSpore's order, and
// tensors unless a type is told: bool, int, float, ints, or none for what must not be given. A question mark stands
// behind what may be missing, three dots behind what may come any number of times, an exclamation mark behind a tensor
// that is written to.
struct Signature {
  struct Argument {
    std::string name;
    Kind kind = Kind::kTensor;
    bool optional = false, repeated = false, written = false;
  };
  std::vector<Argument> inputs, outputs;

  Signature(const char* text);
  // Which argument the i-th of `count` is, where others are `repeated` times there.
  const Argument& input(int i, int count) const { return argument(inputs, i, count); }
  const Argument& output(int i, int count) const { return argument(outputs, i, count); }
  bool has_repeated_outputs() const;

 private:
  const Argument& argument(const std::vector<Argument>& declared, int i, int count) const;
};

struct Op;

// One call. A tensor that is absent is NULL.
class OpCall {
 public:
  struct Argument {
    Tensor* tensor = nullptr;
    const Scalar* scalar = nullptr;
  };

  // Throws Refused when the arguments are not those of the op.
  OpCall(const Op& op, std::vector<Argument> inputs, std::vector<Tensor*> outputs);

  const Op& op() const { return *op_; }
  int num_inputs() const { return static_cast<int>(inputs_.size()); }
  int num_outputs() const { return static_cast<int>(outputs_.size()); }

  bool absent(int i) const { return i >= num_inputs() || inputs_[i].tensor == nullptr; }
  const Tensor& input(int i) const { return *inputs_[i].tensor; }
  Tensor& output(int i) const { return *outputs_[i]; }
  const void* data_or_null(int i) const { return absent(i) ? nullptr : input(i).data; }
  template <class T>
  const T& scalar(int i) const {
    return std::get<T>(*inputs_[i].scalar);
  }
  // The elements of a tensor of integers. Throws Refused when it has another dtype.
  const int32_t* int32s(int i) const { return static_cast<const int32_t*>(checked(i, MG_INT32)); }
  const int64_t* int64s(int i) const { return static_cast<const int64_t*>(checked(i, MG_INT64)); }

 private:
  const void* checked(int i, mg_dtype dtype) const;

  const Op* op_;
  std::vector<Argument> inputs_;
  std::vector<Tensor*> outputs_;
};

struct Cost {
  int64_t bytes = 0;
  int64_t operations = 0;
};

constexpr int kNowhere = -1;

// An output that may lie in the memory of an input.
struct InPlace {
  int output = kNowhere;
  int input = kNowhere;
};

struct Op {
  const char* name;
  Signature signature;
  // Sets the shapes of the outputs; of a view, its step and offset as well.
  void (*infer)(const OpCall& call);
  // Calls the kernel. Returns MG_OK or MG_ERROR, or throws Refused.
  int (*run)(const OpCall& call);
  bool is_view = false;       // the executor lets the outputs lie in the first input
  int strided_inputs = 0;     // so many of the first inputs may be strided views
  int unwritten_outputs = 0;  // so many of the first outputs are left alone by the kernel
  InPlace in_place{};
  Cost (*cost)(const OpCall& call) = nullptr;  // NULL: every tensor is touched once

  Cost cost_of(const OpCall& call) const;
};

// NULL when there is none of that name.
const Op* find_op(const std::string& name);
const std::vector<const Op*>& all_ops();

using Tensors = std::initializer_list<std::reference_wrapper<const Tensor>>;
// The dtype that these share: one that can be computed with, or a float32, bfloat16 or float16. Throws Refused.
mg_dtype common_dtype(Tensors tensors);
mg_dtype common_float(Tensors tensors);

// Shapes that several ops give.
void infer_like_first(const OpCall& call);
// Every tensor is touched once.
Cost tensor_cost(const OpCall& call);
// Every product of rows with a weight whose last or next to last axis is x's last.
Cost matmul_cost(const OpCall& call);

// Makes a call of MindSpore (plugin/) and returns what it takes for success or failure.
int serve_mindspore(const Op& op, int count, void** params, int* ndims, int64_t** shapes, const char** dtypes,
                    void* input_info);

struct RegisteredOp {
  explicit RegisteredOp(const Op* op);
};

}  // namespace mindgen

// Defines an op and makes it known under its name: MINDGEN_OP(SiLU, .signature = "x -> y", ...).
#define MINDGEN_OP(Name, ...) MINDGEN_DEFINE_OP(Name, extra, __VA_ARGS__)
// Of MindSpore's ops.Custom, whose last argument tells nothing of its inputs.
#define MINDGEN_CUSTOM_OP(Name, ...) MINDGEN_DEFINE_OP(Name, ((void)extra, nullptr), __VA_ARGS__)

// MindSpore looks for a function of the op's name.
#define MINDGEN_DEFINE_OP(Name, info, ...)                                                                            \
  static const mindgen::Op Name##_op = {.name = #Name, __VA_ARGS__};                                                  \
  static const mindgen::RegisteredOp Name##_registered(&Name##_op);                                                   \
  extern "C" __attribute__((visibility("default"))) int Name(int count, void** params, int* ndims, int64_t** shapes,  \
                                                             const char** dtypes, void*, void* extra) {               \
    return mindgen::serve_mindspore(Name##_op, count, params, ndims, shapes, dtypes, info);                           \
  }
