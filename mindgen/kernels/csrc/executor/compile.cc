// From the graph as described to the list of kernel calls.
#include "executor.h"
#include "fusion.h"
#include "memory.h"
#include "ops.h"

namespace mindgen {
namespace {

// Whether a reshape leaves the first axis of its input as it is, so that the input's step may stay.
bool keeps_first_axis(const Graph& graph, const Node& reshape) {
  const mg_tensor_type &from = graph.values[reshape.inputs[0]].type, &to = graph.values[reshape.outputs[0]].type;
  int64_t from_entry = 1, to_entry = 1;
  for (int axis = 1; axis < from.ndim; axis++) from_entry *= from.shape[axis];
  for (int axis = 1; axis < to.ndim; axis++) to_entry *= to.shape[axis];
  return from.ndim > 0 && to.ndim > 0 && from_entry == to_entry && from_entry > 0;
}

}  // namespace

void Executor::compile() {
  if (fuse_) fuse(graph);
  mark_views();
  copy_strided_inputs();
  copy_outputs_without_memory();
  for (size_t i = 0; i < graph.outputs.size(); i++) graph.values[graph.outputs[i]].output = static_cast<int>(i);
  check_outputs();
  slot_offsets_.assign(plan_slots(graph) + 1, 0);
  bind_constants();
}

Executor::Executor(const Executor& compiled)
    : graph(compiled.graph), fuse_(compiled.fuse_), slot_offsets_(compiled.slot_offsets_) {
  bind_constants();
}

// From here on values stay where they are in memory.
void Executor::bind_constants() {
  for (Value& value : graph.values) {
    if (value.kind == Value::kConstant) value.tensor.data = value.constant.data();
  }
  for (const Node& node : graph.nodes) plugin_calls_.push_back(node.op->body ? plugin_call(node) : PluginCall());
}

void Executor::mark_views() {
  for (const Node& node : graph.nodes) {
    if (!node.op->is_view) continue;
    const bool strided = graph.values[node.inputs[0]].strided;
    const bool is_split = node.outputs.size() > 1;
    for (int output : node.outputs) {
      graph.values[output].base = node.inputs[0];
      graph.values[output].strided = is_split || (strided && keeps_first_axis(graph, node));
    }
  }
}

void Executor::copy_strided_inputs() {
  std::vector<Node> nodes;
  std::vector<int> copies(graph.values.size(), kNowhere);  // by value
  for (Node& node : graph.nodes) {
    for (size_t i = 0; i < node.inputs.size(); i++) {
      const int input = node.inputs[i];
      const bool may_be_strided = static_cast<int>(i) < node.op->strided_inputs &&
                                  !(node.op == find_op("Reshape") && !keeps_first_axis(graph, node));
      if (!graph.values[input].strided || may_be_strided) continue;
      if (copies[input] == kNowhere) {
        copies[input] = graph.add_result(graph.values[input].type);
        nodes.push_back({&fused::contiguous, node.name, {input}, {copies[input]}});
      }
      node.inputs[i] = copies[input];
      if (node.op->is_view) graph.values[node.outputs[0]].base = copies[input];
    }
    nodes.push_back(std::move(node));
  }
  graph.nodes = std::move(nodes);
}

// Outputs that are inputs, views or given out twice.
void Executor::copy_outputs_without_memory() {
  std::vector<bool> given(graph.values.size(), false);
  for (int& output : graph.outputs) {
    const Value& value = graph.values[output];
    if (value.kind != Value::kResult || value.base != kNowhere || given[output]) {
      const int copy = graph.add_result(value.type);
      graph.nodes.push_back({&fused::contiguous, "output", {output}, {copy}});
      output = copy;
      given.resize(graph.values.size(), false);
    }
    given[output] = true;
  }
}

void Executor::check_outputs() const {
  const Uses uses(graph);
  for (const Node& node : graph.nodes) {
    for (int i = 0; i < node.op->unwritten_outputs; i++) {
      const int value = node.outputs[i];
      if (!uses.users[value].empty() || graph.values[value].output != kNowhere) {
        throw Refused(std::string(node.op->name) + ": its output " + std::to_string(i) + " is not served");
      }
    }
  }
}

Executor::PluginCall Executor::plugin_call(const Node& node) {
  static const char* const none = "none";
  PluginCall call;
  call.values = node.inputs;
  call.values.insert(call.values.end(), node.outputs.begin(), node.outputs.end());
  for (int index : call.values) {
    Value& value = graph.values[index];
    void* data = nullptr;
    const char* dtype = none;
    if (value.kind != Value::kScalar) {
      dtype = dtype_name(value.type.dtype);
    } else if (auto* boolean = std::get_if<bool>(&value.scalar)) {
      data = boolean, dtype = dtype_name(MG_BOOL);
    } else if (auto* integer = std::get_if<int64_t>(&value.scalar)) {
      data = integer, dtype = dtype_name(MG_INT64);
    } else if (auto* number = std::get_if<float>(&value.scalar)) {
      data = number, dtype = dtype_name(MG_FLOAT32);
    } else if (auto* integers = std::get_if<std::vector<int64_t>>(&value.scalar)) {
      data = integers->data(), dtype = dtype_name(MG_INT64);
    }
    call.params.push_back(data);
    call.dtypes.push_back(dtype);
    call.ndims.push_back(value.kind == Value::kScalar ? 0 : value.type.ndim);
    call.shapes.push_back(value.tensor.shape.dims);
  }
  return call;
}

std::string Executor::describe() const {
  std::string text;
  for (const Node& node : graph.nodes) {
    text += std::string(node.op->name) + "\t" + node.name;
    for (int value : node.inputs) text += "\t" + std::to_string(value);
    text += "\t->";
    for (int value : node.outputs) {
      const Value& output = graph.values[value];
      text += "\t" + std::to_string(value);
      if (output.slot != kNowhere) text += " in slot " + std::to_string(output.slot);
      if (output.base != kNowhere) text += " of " + std::to_string(output.base);
    }
    text += "\n";
  }
  return text;
}

}  // namespace mindgen
