// From a call of MindSpore to the op that serves it.
#include <cstdio>

#include "op.h"
#include "views.h"

namespace mindgen {
namespace {

// "bfloat16 (6, 32), int32 (6)": inputs and outputs, but no scalars and no absent inputs.
std::string describe_tensors(const RawCall& call) {
  std::string text;
  for (int i = 0; i < call.count; ++i) {
    if (call.ndims[i] == 0) continue;
    text += (text.empty() ? "" : ", ") + std::string(call.dtypes[i]) + " (";
    for (int axis = 0; axis < call.ndims[i]; ++axis) text += (axis ? ", " : "") + std::to_string(call.shapes[i][axis]);
    text += ")";
  }
  return text.empty() ? "scalars" : text;
}

Tensor tensor_of(const RawCall& call, int i) {
  require(call.ndims[i] <= MG_MAX_AXES, "a tensor of " + std::to_string(call.ndims[i]) + " axes is not served");
  Shape shape;
  for (int axis = 0; axis < call.ndims[i]; ++axis) shape.dims[shape.ndim++] = call.shapes[i][axis];
  Tensor tensor;
  tensor.dtype = find_dtype(call.dtypes[i]);
  tensor.data = call.params[i];
  tensor.set_shape(shape);
  return tensor;
}

Scalar scalar_of(const RawCall& call, int i, Kind kind) {
  const void* data = call.params[i];
  if (data == nullptr) return std::monostate();
  switch (kind) {
    case Kind::kBool: return *static_cast<const bool*>(data);
    case Kind::kInt: return *static_cast<const int64_t*>(data);
    case Kind::kFloat: return *static_cast<const float*>(data);
    // Only shapes follow from them, and MindSpore has told these.
    case Kind::kInts: return std::vector<int64_t>();
    default: return std::monostate();
  }
}

// An op's arguments, typed, and the memory of what describes them.
class TypedCall {
 public:
  TypedCall(const Op& op, const RawCall& call) {
    const Signature& signature = op.signature;
    const int num_outputs = count_outputs(signature, call), num_inputs = call.count - num_outputs;
    tensors_.reserve(call.count);
    scalars_.reserve(call.count);
    std::vector<OpCall::Argument> inputs;
    for (int i = 0; i < num_inputs; ++i) inputs.push_back(input(signature.input(i, num_inputs), call, i));
    std::vector<Tensor*> outputs;
    for (int i = num_inputs; i < call.count; ++i) outputs.push_back(add_tensor(call, i));
    call_.emplace(op, std::move(inputs), std::move(outputs));
  }

  const OpCall& call() const { return *call_; }

 private:
  static int count_outputs(const Signature& signature, const RawCall& call) {
    const int inputs = static_cast<int>(signature.inputs.size()), outputs = static_cast<int>(signature.outputs.size());
    if (signature.has_repeated_outputs()) return call.count - inputs;
    const bool has_repeated_inputs = signature.inputs.front().repeated;
    const bool may_end_early = signature.inputs.back().optional;
    const bool fits = call.count == inputs + outputs || (has_repeated_inputs && call.count > inputs + outputs) ||
                      (may_end_early && call.count == inputs + outputs - 1);
    require(fits, "expected " + std::to_string(inputs + outputs) + " parameters, MindSpore passed " +
                      std::to_string(call.count) + "; this MindSpore version is not served, use 2.9.0 or 2.10.0");
    return outputs;
  }

  Tensor* add_tensor(const RawCall& call, int i) {
    tensors_.push_back(tensor_of(call, i));
    return &tensors_.back();
  }

  OpCall::Argument input(const Signature::Argument& declared, const RawCall& call, int i) {
    if (declared.written) {
      for (int copied : call.copied) require(copied != i, declared.name + " must be contiguous, not a view");
    }
    if (declared.kind == Kind::kTensor || declared.kind == Kind::kNone) {
      return {call.absent(i) ? nullptr : add_tensor(call, i), nullptr};
    }
    scalars_.push_back(scalar_of(call, i, declared.kind));
    return {nullptr, &scalars_.back()};
  }

  std::vector<Tensor> tensors_;
  std::vector<Scalar> scalars_;
  std::optional<OpCall> call_;
};

}  // namespace

int serve_mindspore(const Op& op, int count, void** params, int* ndims, int64_t** shapes, const char** dtypes,
                    void* input_info) {
  const RawCall call{count, params, ndims, shapes, dtypes};
  std::string reason;
  try {
    const ContiguousInputs inputs(call, static_cast<InputInfo*>(input_info));
    const TypedCall typed(op, inputs.call());
    if (op.run(typed.call()) == MG_OK) return 0;
    reason = mg_last_error();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  const std::string message =
      std::string("CPU op ") + op.name + ": " + reason + "; called with " + describe_tensors(call);
  mg_set_error(message.c_str());
  std::fprintf(stderr, "mindgen: %s\n", message.c_str());
  return 1;
}

}  // namespace mindgen
