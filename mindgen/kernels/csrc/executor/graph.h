// A network as the executor holds it: values, and nodes that compute them in order.
#pragma once
#include <memory>

#include "op.h"

namespace mindgen {

struct Value {
  enum Kind { kInput, kConstant, kScalar, kResult } kind;
  Tensor tensor;                  // of the run at hand
  Scalar scalar;
  mg_tensor_type type{};          // as described
  std::vector<char> constant;
  int input = kNowhere;           // number of the graph's input
  int base = kNowhere;            // the value that this one is a view of
  bool strided = false;           // a view whose step may be longer than its entries
  int slot = kNowhere;            // of the workspace, for results that are no views
  int output = kNowhere;          // number of the graph's output
};

struct Node {
  const Op* op;
  std::string name;
  std::vector<int> inputs;
  std::vector<int> outputs;
};

class Graph {
 public:
  std::vector<Value> values;
  std::vector<Node> nodes;  // in the order they run
  std::vector<int> inputs, outputs;

  int add_value(Value::Kind kind);
  int add_result(const mg_tensor_type& type);
  int add_scalar(Scalar scalar);

  const Tensor& tensor(int value) const { return values[value].tensor; }
  Tensor& tensor(int value) { return values[value].tensor; }
  bool is_none(int value) const {
    return values[value].kind == Value::kScalar && std::holds_alternative<std::monostate>(values[value].scalar);
  }
  template <class T>
  const T& scalar(int value) const {
    const T* found = std::get_if<T>(&values[value].scalar);
    if (!found) throw Refused("argument " + std::to_string(value) + " is of another type");
    return *found;
  }
};

// Which nodes use each value, and which node makes it; of a graph that is not changed meanwhile.
struct Uses {
  std::vector<std::vector<int>> users;  // by value: nodes, in order; one that uses it twice is there twice
  std::vector<int> producer;            // by value: a node, or kNowhere

  explicit Uses(const Graph& graph);
};

}  // namespace mindgen
