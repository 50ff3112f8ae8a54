#include "graph.h"

namespace mindgen {
int Graph::add_value(Value::Kind kind) {
  values.emplace_back();
  values.back().kind = kind;
  return static_cast<int>(values.size()) - 1;
}

int Graph::add_result(const mg_tensor_type& type) {
  const int value = add_value(Value::kResult);
  values[value].type = type;
  values[value].tensor.dtype = type.dtype;
  return value;
}

int Graph::add_scalar(Scalar scalar) {
  const int value = add_value(Value::kScalar);
  values[value].scalar = std::move(scalar);
  return value;
}

Uses::Uses(const Graph& graph) : users(graph.values.size()), producer(graph.values.size(), kNowhere) {
  for (size_t node = 0; node < graph.nodes.size(); node++) {
    for (int value : graph.nodes[node].inputs) users[value].push_back(static_cast<int>(node));
    for (int value : graph.nodes[node].outputs) producer[value] = static_cast<int>(node);
  }
}

}  // namespace mindgen
