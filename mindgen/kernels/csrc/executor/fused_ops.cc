// The ops that take the place of several.
#include "ops.h"

namespace mindgen {
namespace {

const void* data_or_null(const Graph& graph, int value) {
  return graph.is_none(value) ? nullptr : graph.tensor(value).data;
}

// y (T, N) from x (T, K) and w (N, K)
void infer_linear(Graph& graph, const Node& node) {
  const Shape& w = graph.tensor(node.inputs[1]).shape;
  graph.tensor(node.outputs[0]).set_shape({graph.tensor(node.inputs[0]).shape.first(), w.first()});
}

int run_linear(Graph& graph, const Node& node) {
  const Tensor &x = graph.tensor(node.inputs[0]), &w = graph.tensor(node.inputs[1]);
  const Tensor& y = graph.tensor(node.outputs[0]);
  return mg_linear(x.data, x.step, w.data, data_or_null(graph, node.inputs[2]), data_or_null(graph, node.inputs[3]),
                   y.data, y.shape.first(), y.shape.last(), w.shape.last(), x.dtype, y.dtype);
}

// y (T, N) from x (T, K) and w (2N, K)
void infer_linear_swiglu(Graph& graph, const Node& node) {
  const Shape& w = graph.tensor(node.inputs[1]).shape;
  graph.tensor(node.outputs[0]).set_shape({graph.tensor(node.inputs[0]).shape.first(), w.first() / 2});
}

int run_linear_swiglu(Graph& graph, const Node& node) {
  const Tensor &x = graph.tensor(node.inputs[0]), &w = graph.tensor(node.inputs[1]);
  const Tensor& y = graph.tensor(node.outputs[0]);
  return mg_linear_swiglu(x.data, x.step, w.data, data_or_null(graph, node.inputs[2]), y.data, y.shape.first(),
                          y.shape.last(), w.shape.last(), y.dtype);
}

void infer_rotary_and_cache(Graph& graph, const Node& node) {
  graph.tensor(node.outputs[0]).set_shape(graph.tensor(node.inputs[0]).shape);
}

int run_rotary_and_cache(Graph& graph, const Node& node) {
  const auto input = [&](int i) -> const Tensor& { return graph.tensor(node.inputs[i]); };
  const Tensor &query = input(0), &key = input(1), &value = input(2), &cos = input(3), &cache = input(6);
  if (cos.shape.first() != query.shape.first()) throw Refused("cos and sin must have a row for each token");
  mg_rotary_and_cache_call call{};
  call.query = query.data, call.key = key.data, call.value = value.data;
  call.query_step = query.step, call.key_step = key.step, call.value_step = value.step;
  call.cos = cos.data, call.sin = input(4).data;
  call.slot_mapping = static_cast<const int32_t*>(input(5).data);
  call.key_cache = cache.data, call.value_cache = input(7).data;
  call.query_gamma = data_or_null(graph, node.inputs[8]), call.key_gamma = data_or_null(graph, node.inputs[9]);
  call.epsilon = graph.scalar<float>(node.inputs[10]);
  call.interleaved = graph.scalar<bool>(node.inputs[11]);
  call.query_out = graph.tensor(node.outputs[0]).data;
  call.T = query.shape.first(), call.D = cos.shape.last();
  call.Hq = query.shape.elements(1) / call.D, call.Hkv = key.shape.elements(1) / call.D;
  call.num_slots = cache.shape.dims[0] * cache.shape.dims[1];
  call.dtype = query.dtype;
  return mg_rotary_and_cache(&call);
}

void infer_add_lora(Graph& graph, const Node& node) {
  graph.tensor(node.outputs[0]).set_shape(graph.tensor(node.inputs[1]).shape);
}

int run_add_lora(Graph& graph, const Node& node) {
  constexpr size_t first_level = 2, first_part = 2;  // of a level
  const Tensor &x = graph.tensor(node.inputs[0]), &before = graph.tensor(node.inputs[1]);
  const Tensor& y = graph.tensor(node.outputs[0]);
  if (before.data != y.data && mg_copy(before.data, y.data, y.bytes()) != MG_OK) return MG_ERROR;
  const size_t inputs = node.inputs.size() - first_level, step = lora_level_inputs(graph, node);
  const size_t num_levels = inputs / step, num_parts = step - first_part;
  std::vector<mg_lora_level> levels(num_levels);
  std::vector<const void*> parts(num_levels * num_parts);
  std::vector<int64_t> sizes(num_parts);
  for (size_t l = 0; l < num_levels; l++) {
    const int* level = node.inputs.data() + first_level + l * step;
    const Tensor &ends = graph.tensor(level[0]), &a = graph.tensor(level[1]);
    for (size_t p = 0; p < num_parts; p++) {
      const Tensor& b = graph.tensor(level[first_part + p]);
      parts[l * num_parts + p] = b.data, sizes[p] = b.shape.last();
    }
    levels[l] = {a.data, parts.data() + l * num_parts, static_cast<const int64_t*>(ends.data), a.shape.first(),
                 a.shape.last() / static_cast<int64_t>(num_parts)};
  }
  return mg_add_lora(x.data, x.step, levels.data(), static_cast<int>(num_levels), sizes.data(),
                     static_cast<int>(num_parts), y.data, y.shape.first(), x.shape.last(), x.dtype, y.dtype);
}

void infer_contiguous(Graph& graph, const Node& node) {
  graph.tensor(node.outputs[0]).set_shape(graph.tensor(node.inputs[0]).shape);
}

int run_contiguous(Graph& graph, const Node& node) {
  const Tensor &x = graph.tensor(node.inputs[0]), &y = graph.tensor(node.outputs[0]);
  const int64_t item = item_size(x.dtype), width = x.shape.elements(1) * item, step = x.step * item;
  if (width == step) return mg_copy(x.data, y.data, y.bytes());
  for (int64_t row = 0; row < x.shape.first(); row++) {
    const char* from = static_cast<const char*>(x.data) + row * step;
    if (mg_copy(from, static_cast<char*>(y.data) + row * width, width) != MG_OK) return MG_ERROR;
  }
  return MG_OK;
}

}  // namespace

size_t lora_level_inputs(const Graph& graph, const Node& node) {
  size_t next = 3;
  while (next < node.inputs.size() && graph.values[node.inputs[next]].type.dtype != MG_INT64) next++;
  return next - 2;
}

namespace fused {

const Op linear = {.name = "Linear", .infer = infer_linear, .run = run_linear, .strided_inputs = 1,
                   .in_place = {0, 3}, .cost = matmul_cost};
const Op linear_swiglu = {.name = "LinearSwiglu", .infer = infer_linear_swiglu, .run = run_linear_swiglu,
                          .strided_inputs = 1, .cost = matmul_cost};
const Op rotary_and_cache = {.name = "RotaryAndCache", .infer = infer_rotary_and_cache, .run = run_rotary_and_cache,
                             .strided_inputs = 3, .cost = rotary_and_cache_cost};
const Op add_lora = {.name = "AddLora", .infer = infer_add_lora, .run = run_add_lora, .strided_inputs = 1,
                     .in_place = {0, 1}, .cost = add_lora_cost};
const Op contiguous = {.name = "Contiguous", .infer = infer_contiguous, .run = run_contiguous, .strided_inputs = 1};

}  // namespace fused
}  // namespace mindgen
