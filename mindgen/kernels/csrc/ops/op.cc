#include "op.h"

#include <algorithm>
#include <cstring>

#include "dispatch.h"

namespace mindgen {
namespace {

Kind kind_of(const std::string& type) {
  const std::pair<const char*, Kind> kinds[] = {{"bool", Kind::kBool},   {"int", Kind::kInt},   {"float", Kind::kFloat},
                                                {"ints", Kind::kInts}, {"none", Kind::kNone}};
  for (const auto& [name, kind] : kinds) {
    if (type == name) return kind;
  }
  throw std::logic_error("an op's signature names the unknown type " + type);
}

// "name", "name?", "name...", "name!", each possibly followed by ": type"
Signature::Argument parse_argument(std::string text) {
  Signature::Argument argument;
  if (const size_t colon = text.find(": "); colon != std::string::npos) {
    argument.kind = kind_of(text.substr(colon + 2));
    text.resize(colon);
  }
  const auto take = [&](const std::string& mark) {
    if (text.size() < mark.size() || text.substr(text.size() - mark.size()) != mark) return false;
    text.resize(text.size() - mark.size());
    return true;
  };
  argument.optional = take("?");
  argument.repeated = take("...");
  argument.written = take("!");
  argument.name = text;
  return argument;
}

std::vector<Signature::Argument> parse_arguments(std::string text) {
  std::vector<Signature::Argument> arguments;
  for (size_t end; !text.empty(); text = end == std::string::npos ? "" : text.substr(end + 2)) {
    end = text.find(", ");
    arguments.push_back(parse_argument(text.substr(0, end)));
  }
  return arguments;
}

// Filled while the library is loaded, in no particular order.
std::vector<const Op*>& registry() {
  static std::vector<const Op*> all;
  return all;
}

bool has_kind(const OpCall::Argument& given, Kind kind) {
  switch (kind) {
    case Kind::kTensor: return given.tensor != nullptr;
    case Kind::kNone: return given.tensor == nullptr;
    case Kind::kBool: return given.scalar && std::holds_alternative<bool>(*given.scalar);
    case Kind::kInt: return given.scalar && std::holds_alternative<int64_t>(*given.scalar);
    case Kind::kFloat: return given.scalar && std::holds_alternative<float>(*given.scalar);
    case Kind::kInts: return given.scalar && std::holds_alternative<std::vector<int64_t>>(*given.scalar);
  }
  return false;
}

bool is_none(const OpCall::Argument& given) {
  return !given.tensor && (!given.scalar || std::holds_alternative<std::monostate>(*given.scalar));
}

void check_argument(const Signature::Argument& declared, const OpCall::Argument& given) {
  if (declared.kind == Kind::kNone) return require(is_none(given), declared.name + " is not served, pass None");
  if (is_none(given)) return require(declared.optional, declared.name + " must not be None");
  require(has_kind(given, declared.kind), declared.name + " is of another type than the op takes");
}

}  // namespace

Signature::Signature(const char* text) {
  const std::string all(text), arrow = " -> ";
  const size_t at = all.find(arrow);
  inputs = parse_arguments(all.substr(0, at));
  outputs = parse_arguments(all.substr(at + arrow.size()));
}

const Signature::Argument& Signature::argument(const std::vector<Argument>& declared, int i, int count) const {
  const int more = count - static_cast<int>(declared.size());  // copies of the repeated one, beyond the first
  for (int place = 0; place < static_cast<int>(declared.size()); place++) {
    if (declared[place].repeated) return declared[i <= place + more ? place : i - more];
    if (i == place) return declared[place];
  }
  throw Refused("there are " + std::to_string(count) + " arguments, not " + std::to_string(declared.size()));
}

bool Signature::has_repeated_outputs() const { return !outputs.empty() && outputs.back().repeated; }

OpCall::OpCall(const Op& op, std::vector<Argument> inputs, std::vector<Tensor*> outputs)
    : op_(&op), inputs_(std::move(inputs)), outputs_(std::move(outputs)) {
  for (int i = 0; i < num_inputs(); i++) check_argument(op.signature.input(i, num_inputs()), inputs_[i]);
  for (int i = num_inputs(); i < static_cast<int>(op.signature.inputs.size()); i++) {
    require(op.signature.inputs[i].optional, op.signature.inputs[i].name + " is missing");
  }
  if (num_outputs() > 0) op.signature.output(num_outputs() - 1, num_outputs());
}

const void* OpCall::checked(int i, mg_dtype dtype) const {
  require(input(i).dtype == dtype, op_->signature.input(i, num_inputs()).name + " must be " + dtype_name(dtype) +
                                       ", not " + dtype_name(input(i).dtype));
  return input(i).data;
}

Cost Op::cost_of(const OpCall& call) const { return cost ? cost(call) : tensor_cost(call); }

RegisteredOp::RegisteredOp(const Op* op) { registry().push_back(op); }

const std::vector<const Op*>& all_ops() { return registry(); }

const Op* find_op(const std::string& name) {
  for (const Op* op : registry()) {
    if (name == op->name) return op;
  }
  return nullptr;
}

mg_dtype common_dtype(Tensors tensors) {
  const mg_dtype dtype = tensors.begin()->get().dtype;
  for (const Tensor& tensor : tensors) {
    require(tensor.dtype == dtype, std::string("inputs must share one dtype, not ") + dtype_name(dtype) + " and " +
                                       dtype_name(tensor.dtype) + "; cast one of them");
  }
  require(dtype < MG_COMPLEX64, std::string("dtype ") + dtype_name(dtype) +
                                    " is not served; cast to float32, bfloat16, float16 or int32");
  return dtype;
}

mg_dtype common_float(Tensors tensors) {
  const mg_dtype dtype = common_dtype(tensors);
  require(is_compute_dtype(dtype), std::string("dtype ") + dtype_name(dtype) +
                                       " is not served; cast to bfloat16, float16 or float32");
  return dtype;
}

void infer_like_first(const OpCall& call) { call.output(0).set_shape(call.input(0).shape); }

Cost tensor_cost(const OpCall& call) {
  Cost cost;
  for (int i = 0; i < call.num_inputs(); i++) cost.bytes += call.absent(i) ? 0 : call.input(i).bytes();
  for (int i = 0; i < call.num_outputs(); i++) cost.bytes += call.output(i).data ? call.output(i).bytes() : 0;
  return cost;
}

Cost matmul_cost(const OpCall& call) {
  const Shape &x = call.input(0).shape, &w = call.input(1).shape;
  const int64_t depth = x.last(), columns = w.elements(w.ndim - 2) / (depth > 0 ? depth : 1);
  return {tensor_cost(call).bytes, 2 * x.elements() * columns};
}

}  // namespace mindgen
