// What a pattern needs to look around in a graph and to change it.
#pragma once
#include <algorithm>

#include "fused.h"

namespace mindgen {

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph(graph), uses_(graph) {}

  Graph& graph;

  int num_nodes() const { return static_cast<int>(graph.nodes.size()); }
  const Node& node(int index) const { return graph.nodes[index]; }
  bool is(int index, const char* op) const {
    return index != kNowhere && node(index).op && std::string(node(index).op->name) == op;
  }
  int producer(int value) const { return uses_.producer[value]; }
  // The node that makes the value, if it is of that op.
  int producer(int value, const char* op) const { return is(producer(value), op) ? producer(value) : kNowhere; }
  bool is_unused(int value) const { return uses_.users[value].empty() && !is_output(value); }
  // The only node that uses the value, if it is of that op.
  int only_user(int value, const char* op) const {
    const std::vector<int>& users = uses_.users[value];
    return users.size() == 1 && !is_output(value) && is(users[0], op) ? users[0] : kNowhere;
  }
  bool is_used_before(int value, int index) const {
    const std::vector<int>& users = uses_.users[value];
    return !users.empty() && users.front() < index;
  }
  const mg_tensor_type& type(int value) const { return graph.values[value].type; }
  bool same_rows(int a, int b) const {
    const mg_tensor_type &left = type(a), &right = type(b);
    return left.dtype == right.dtype && left.ndim == 2 && right.ndim == 2 && left.shape[1] == right.shape[1] &&
           left.shape[1] > 0;
  }

  // Puts a node in the place of the last of these; its outputs were theirs.
  void replace(std::vector<int> nodes, Node fused) {
    const int last = *std::max_element(nodes.begin(), nodes.end());
    for (int index : nodes) graph.nodes[index].op = nullptr;
    graph.nodes[last] = std::move(fused);
    uses_ = Uses(without_erased());
  }
  void replace_uses(int value, int by) {
    for (Node& node : graph.nodes) std::replace(node.inputs.begin(), node.inputs.end(), value, by);
    uses_ = Uses(without_erased());
  }

 private:
  bool is_output(int value) const {
    return std::find(graph.outputs.begin(), graph.outputs.end(), value) != graph.outputs.end();
  }
  // Erased nodes keep their place, but neither use nor make anything.
  Graph& without_erased() {
    for (Node& node : graph.nodes) {
      if (!node.op) node.inputs.clear(), node.outputs.clear();
    }
    return graph;
  }

  Uses uses_;
};

}  // namespace mindgen
