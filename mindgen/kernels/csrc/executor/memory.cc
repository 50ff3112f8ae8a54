#include "memory.h"

#include <algorithm>


namespace mindgen {
namespace {

class SlotPlan {
 public:
  explicit SlotPlan(Graph& graph) : graph_(graph), last_use_(graph.values.size(), kNowhere) {
    for (size_t index = 0; index < graph.nodes.size(); index++) {
      for (int value : graph.nodes[index].inputs) last_use_[root(value)] = static_cast<int>(index);
    }
  }

  int run() {
    for (int index = 0; index < static_cast<int>(graph_.nodes.size()); index++) {
      const Node& node = graph_.nodes[index];
      if (node.op->is_view) continue;
      for (size_t output = 0; output < node.outputs.size(); output++) place(node, static_cast<int>(output), index);
      release(index);
    }
    return static_cast<int>(widths_.size());
  }

 private:
  int root(int value) const {
    while (graph_.values[value].base != kNowhere) value = graph_.values[value].base;
    return value;
  }

  // Bytes of an entry of the first axis, which all tensors of tokens have in common.
  int64_t width(int value) const {
    const mg_tensor_type& type = graph_.values[value].type;
    int64_t bytes = item_size(type.dtype);
    for (int axis = 1; axis < type.ndim; axis++) bytes *= std::max<int64_t>(type.shape[axis], 1);
    return bytes;
  }

  void place(const Node& node, int output, int index) {
    Value& value = graph_.values[node.outputs[output]];
    if (value.output != kNowhere || output < node.op->unwritten_outputs) return;
    const InPlace& in_place = node.op->in_place;
    if (in_place.output == output) {
      const int input = root(node.inputs[in_place.input]);
      const Value& given = graph_.values[input];
      if (given.slot != kNowhere && last_use_[input] == index && width(input) == width(node.outputs[output])) {
        value.slot = given.slot;
        owners_[value.slot] = node.outputs[output];
        return;
      }
    }
    value.slot = take(width(node.outputs[output]));
    owners_[value.slot] = node.outputs[output];
  }

  // The free slot whose width fits best.
  int take(int64_t wanted) {
    int best = kNowhere;
    for (int slot = 0; slot < static_cast<int>(widths_.size()); slot++) {
      if (owners_[slot] != kNowhere) continue;
      if (best == kNowhere || std::abs(widths_[slot] - wanted) < std::abs(widths_[best] - wanted)) best = slot;
    }
    if (best == kNowhere) {
      widths_.push_back(wanted);
      owners_.push_back(kNowhere);
      return static_cast<int>(widths_.size()) - 1;
    }
    widths_[best] = std::max(widths_[best], wanted);
    return best;
  }

  void release(int index) {
    for (int& owner : owners_) {
      if (owner != kNowhere && last_use_[owner] <= index) owner = kNowhere;
    }
  }

  Graph& graph_;
  std::vector<int> last_use_;    // by value that is no view: the last node that uses it or a view of it
  std::vector<int64_t> widths_;  // by slot
  std::vector<int> owners_;      // by slot: the value in it
};

}  // namespace

int plan_slots(Graph& graph) { return SlotPlan(graph).run(); }

}  // namespace mindgen
