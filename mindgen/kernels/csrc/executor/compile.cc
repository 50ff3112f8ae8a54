// From the graph as described to the list of kernel calls.
#include "executor.h"
#include "fused.h"
#include "fusion.h"
#include "memory.h"

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
  calls_.clear();
  for (const Node& node : graph.nodes) calls_.push_back(call_of(node));
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

OpCall Executor::call_of(const Node& node) {
  std::vector<OpCall::Argument> inputs;
  for (int index : node.inputs) {
    Value& value = graph.values[index];
    const bool is_scalar = value.kind == Value::kScalar;
    inputs.push_back({is_scalar ? nullptr : &value.tensor, is_scalar ? &value.scalar : nullptr});
  }
  std::vector<Tensor*> outputs;
  for (int index : node.outputs) outputs.push_back(&graph.tensor(index));
  try {
    return OpCall(*node.op, std::move(inputs), std::move(outputs));
  } catch (const Refused& refused) {
    throw Refused(std::string(node.op->name) + " (" + node.name + "): " + refused.what());
  }
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
