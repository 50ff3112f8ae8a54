// How many bytes a kernel call must touch, and how many operations it must do; a multiplication and an addition are two.
#include "ops.h"

namespace mindgen {
namespace {

int64_t bytes_of(const Graph& graph, const std::vector<int>& values) {
  int64_t bytes = 0;
  for (int value : values) {
    if (graph.values[value].kind != Value::kScalar) bytes += graph.tensor(value).bytes();
  }
  return bytes;
}

}  // namespace

Cost tensor_cost(const Graph& graph, const Node& node) {
  int64_t bytes = bytes_of(graph, node.inputs);
  for (int output : node.outputs) bytes += graph.tensor(output).data ? graph.tensor(output).bytes() : 0;
  return {bytes, 0};
}

// Every product of rows with a weight whose last or next to last axis is x's last.
Cost matmul_cost(const Graph& graph, const Node& node) {
  const Shape &x = graph.tensor(node.inputs[0]).shape, &w = graph.tensor(node.inputs[1]).shape;
  const int64_t depth = x.last(), columns = w.elements(w.ndim - 2) / (depth > 0 ? depth : 1);
  return {tensor_cost(graph, node).bytes, 2 * x.elements() * columns};
}

Cost gather_cost(const Graph& graph, const Node& node) {
  return {2 * graph.tensor(node.outputs[0]).bytes() + graph.tensor(node.inputs[1]).bytes(), 0};
}

// Inputs: key, value, caches (2), slots.
Cost cache_cost(const Graph& graph, const Node& node) {
  return {2 * (graph.tensor(node.inputs[0]).bytes() + graph.tensor(node.inputs[1]).bytes()), 0};
}

Cost rotary_and_cache_cost(const Graph& graph, const Node& node) {
  const std::vector<int> moved(node.inputs.begin(), node.inputs.begin() + 3);
  return {2 * bytes_of(graph, moved) + bytes_of(graph, {node.inputs[3], node.inputs[4]}), 0};
}

// PagedAttention: query, caches (2), block_tables, context_lens, ..., query_lens (input 8; in float32, input 5).
// FlashAttentionScore: query, key, value, ..., query_ends (input 8), key_ends (input 9).
Cost attention_cost(const Graph& graph, const Node& node) {
  const Tensor &query = graph.tensor(node.inputs[0]), &key = graph.tensor(node.inputs[1]);
  const bool paged = key.shape.ndim == 4;
  const int64_t width = paged ? key.shape.elements(2) : key.shape.last();
  const Tensor& lengths = graph.tensor(node.inputs[paged ? 4 : 9]);
  int64_t keys = 0, scores = 0, first_query = 0, first_key = 0;
  for (int64_t b = 0; b < lengths.shape.elements(); b++) {
    int64_t queries = 1, context;
    if (paged) {
      context = static_cast<const int32_t*>(lengths.data)[b];
      const int query_lens = node.inputs[node.inputs.size() > 8 ? 8 : 5];
      if (!graph.is_none(query_lens)) queries = static_cast<const int32_t*>(graph.tensor(query_lens).data)[b];
    } else {
      const int64_t query_end = static_cast<const int64_t*>(graph.tensor(node.inputs[8]).data)[b];
      const int64_t key_end = static_cast<const int64_t*>(lengths.data)[b];
      queries = query_end - first_query, context = key_end - first_key;
      first_query = query_end, first_key = key_end;
    }
    keys += context;
    scores += queries * context - queries * (queries - 1) / 2;
  }
  return {2 * query.bytes() + 2 * keys * width * item_size(key.dtype), 4 * scores * query.shape.last()};
}

// Only the weights of groups with rows are read.
Cost add_lora_cost(const Graph& graph, const Node& node) {
  const Tensor &x = graph.tensor(node.inputs[0]), &y = graph.tensor(node.inputs[1]);
  const size_t step = lora_level_inputs(graph, node);
  Cost cost{x.bytes() + 2 * y.bytes(), 0};
  for (size_t level = 2; level < node.inputs.size(); level += step) {
    const Tensor& ends = graph.tensor(node.inputs[level]);
    int64_t weights = 0, start = 0, groups = 0;
    for (size_t i = 1; i < step; i++) weights += graph.tensor(node.inputs[level + i]).shape.elements(1);
    for (int64_t e = 0; e < ends.shape.elements(); e++) {
      const int64_t end = static_cast<const int64_t*>(ends.data)[e];
      groups += end > start;
      start = end;
    }
    cost.bytes += groups * weights * item_size(x.dtype);
    cost.operations += 2 * start * weights;
  }
  return cost;
}

}  // namespace mindgen
