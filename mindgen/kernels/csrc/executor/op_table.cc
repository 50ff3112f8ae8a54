// The ops of the plugin, as the executor sees them. Their arguments are in MindSpore's order, as in csrc/plugin. Those in
// float32 are custom ops of MindSpore.
#include <algorithm>

#include "ops.h"

namespace mindgen {
namespace {

const Shape& shape_of(const Graph& graph, const Node& node, int input) {
  return graph.tensor(node.inputs[input]).shape;
}

void set_output(Graph& graph, const Node& node, int output, const Shape& shape) {
  graph.tensor(node.outputs[output]).set_shape(shape);
}

int positive_axis(int64_t axis, int ndim) {
  if (axis < -ndim || axis >= ndim) throw Refused("axis " + std::to_string(axis) + " is out of range");
  return static_cast<int>(axis < 0 ? axis + ndim : axis);
}

void like_first(Graph& graph, const Node& node) {
  set_output(graph, node, 0, shape_of(graph, node, 0));
}

void infer_rms_norm(Graph& graph, const Node& node) {
  Shape rows = shape_of(graph, node, 0);
  set_output(graph, node, 0, rows);
  rows.dims[rows.ndim - 1] = 1;
  set_output(graph, node, 1, rows);
}

void infer_layer_norm(Graph& graph, const Node& node) {
  infer_rms_norm(graph, node);
  set_output(graph, node, 2, graph.tensor(node.outputs[1]).shape);
}

void infer_add_rms_norm(Graph& graph, const Node& node) {
  infer_rms_norm(graph, node);
  set_output(graph, node, 2, shape_of(graph, node, 0));
}

void infer_apply_rotary(Graph& graph, const Node& node) {
  set_output(graph, node, 0, shape_of(graph, node, 0));
  set_output(graph, node, 1, shape_of(graph, node, 1));
}

void infer_flash_attention(Graph& graph, const Node& node) {
  for (int output = 0; output < 3; output++) set_output(graph, node, output, Shape{0});
  set_output(graph, node, 3, shape_of(graph, node, 0));
}

void infer_matmul(Graph& graph, const Node& node) {
  Shape shape = shape_of(graph, node, 0);
  const Shape& right = shape_of(graph, node, 1);
  const int ndim = shape.ndim;
  if (ndim < 2 || right.ndim != ndim) throw Refused("the factors must have the same number of axes");
  if (graph.scalar<bool>(node.inputs[2])) std::swap(shape.dims[ndim - 1], shape.dims[ndim - 2]);
  shape.dims[ndim - 1] = right.dims[ndim - (graph.scalar<bool>(node.inputs[3]) ? 2 : 1)];
  set_output(graph, node, 0, shape);
}

void infer_dense(Graph& graph, const Node& node) {
  Shape shape = shape_of(graph, node, 0);
  shape.dims[shape.ndim - 1] = shape_of(graph, node, 1).first();
  set_output(graph, node, 0, shape);
}

void infer_grouped_matmul(Graph& graph, const Node& node) {
  const Shape& weight = shape_of(graph, node, 1);
  if (weight.ndim != 3) throw Refused("the weight must be (E, K, N)");
  const bool transpose_b = graph.scalar<bool>(node.inputs[11]);
  set_output(graph, node, 0, {shape_of(graph, node, 0).first(), weight.dims[transpose_b ? 1 : 2]});
}

void infer_swiglu(Graph& graph, const Node& node) {
  Shape shape = shape_of(graph, node, 0);
  shape.dims[shape.ndim - 1] /= 2;
  set_output(graph, node, 0, shape);
}

void infer_broadcast(Graph& graph, const Node& node) {
  const Shape &a = shape_of(graph, node, 0), &b = shape_of(graph, node, 1);
  Shape shape = a.ndim >= b.ndim ? a : b;
  const Shape& other = a.ndim >= b.ndim ? b : a;
  for (int axis = 1; axis <= other.ndim; axis++) {
    int64_t& size = shape.dims[shape.ndim - axis];
    const int64_t other_size = other.dims[other.ndim - axis];
    if (size != other_size && size != 1 && other_size != 1) throw Refused("the shapes do not broadcast");
    if (size == 1) size = other_size;
  }
  set_output(graph, node, 0, shape);
}

void infer_gather(Graph& graph, const Node& node) {
  const Shape &x = shape_of(graph, node, 0), &indices = shape_of(graph, node, 1);
  const int axis = positive_axis(graph.scalar<int64_t>(node.inputs[2]), x.ndim);
  const int64_t given = graph.scalar<int64_t>(node.inputs[3]);
  const int batch_dims = static_cast<int>(given < 0 ? given + indices.ndim : given);
  if (x.ndim + indices.ndim - 1 - batch_dims > MG_MAX_AXES) throw Refused("too many axes");
  Shape shape;
  for (int i = 0; i < axis; i++) shape.dims[shape.ndim++] = x.dims[i];
  for (int i = batch_dims; i < indices.ndim; i++) shape.dims[shape.ndim++] = indices.dims[i];
  for (int i = axis + 1; i < x.ndim; i++) shape.dims[shape.ndim++] = x.dims[i];
  set_output(graph, node, 0, shape);
}

void infer_embedding_lookup(Graph& graph, const Node& node) {
  const Shape &table = shape_of(graph, node, 0), &ids = shape_of(graph, node, 1);
  if (table.ndim + ids.ndim - 1 > MG_MAX_AXES) throw Refused("too many axes");
  Shape shape = ids;
  for (int i = 1; i < table.ndim; i++) shape.dims[shape.ndim++] = table.dims[i];
  set_output(graph, node, 0, shape);
}

void infer_concat(Graph& graph, const Node& node) {
  const int num_parts = static_cast<int>(node.inputs.size()) - 1;
  Shape shape = shape_of(graph, node, 0);
  const int axis = positive_axis(graph.scalar<int64_t>(node.inputs[num_parts]), shape.ndim);
  for (int part = 1; part < num_parts; part++) shape.dims[axis] += shape_of(graph, node, part).dims[axis];
  set_output(graph, node, 0, shape);
}

// The parts along an axis, each so long: views of x when the axis is one of the first two.
void split(Graph& graph, const Node& node, int axis, const std::vector<int64_t>& sizes) {
  const Tensor& x = graph.tensor(node.inputs[0]);
  if (axis > 1) throw Refused("views along axis " + std::to_string(axis) + " are not served");
  const int64_t stride = axis == 0 ? x.step : x.shape.elements(2);
  int64_t start = 0;
  for (size_t part = 0; part < sizes.size(); part++) {
    Value& view = graph.values[node.outputs[part]];
    view.tensor.shape = x.shape;
    view.tensor.shape.dims[axis] = sizes[part];
    view.tensor.step = x.step;
    view.offset = start * stride * item_size(x.dtype);
    start += sizes[part];
  }
  if (start != x.shape.dims[axis]) throw Refused("the parts do not add up to the axis");
}

void infer_split(Graph& graph, const Node& node) {
  const Shape& x = shape_of(graph, node, 0);
  const int axis = positive_axis(graph.scalar<int64_t>(node.inputs[1]), x.ndim);
  const int64_t count = graph.scalar<int64_t>(node.inputs[2]);
  if (count < 1 || x.dims[axis] % count != 0) throw Refused("the axis does not split evenly");
  split(graph, node, axis, std::vector<int64_t>(count, x.dims[axis] / count));
}

void infer_split_with_size(Graph& graph, const Node& node) {
  const int axis = positive_axis(graph.scalar<int64_t>(node.inputs[2]), shape_of(graph, node, 0).ndim);
  split(graph, node, axis, graph.scalar<std::vector<int64_t>>(node.inputs[1]));
}

void infer_reshape(Graph& graph, const Node& node) {
  const Tensor& x = graph.tensor(node.inputs[0]);
  const std::vector<int64_t>& sizes = graph.scalar<std::vector<int64_t>>(node.inputs[1]);
  if (sizes.size() > MG_MAX_AXES) throw Refused("too many axes");
  Shape shape;
  int64_t known = 1;
  for (int64_t size : sizes) {
    shape.dims[shape.ndim++] = size;
    if (size != -1) known *= size;
  }
  for (int axis = 0; axis < shape.ndim; axis++) {
    if (shape.dims[axis] == -1) shape.dims[axis] = known > 0 ? x.shape.elements() / known : 0;
  }
  if (shape.elements() != x.shape.elements()) throw Refused("the number of elements would change");
  Value& view = graph.values[node.outputs[0]];
  view.tensor.set_shape(shape);
  view.offset = 0;
  // Where the first axis stays as it is, its step may too.
  if (shape.first() == x.shape.first()) view.tensor.step = x.step;
}

const Op ops[] = {
    {.name = "Add", .infer = infer_broadcast},
    {.name = "AddRmsNorm", .infer = infer_add_rms_norm, .in_place = {2, 1}},
    {.name = "AllReduce", .infer = like_first, .in_place = {0, 0}},
    {.name = "ApplyRotaryPosEmb", .infer = infer_apply_rotary},
    {.name = "ApplyRotaryPosEmbFloat32", .infer = infer_apply_rotary},
    {.name = "BatchMatMul", .infer = infer_matmul, .cost = matmul_cost},
    {.name = "Cast", .infer = like_first},
    {.name = "Concat", .infer = infer_concat},
    {.name = "Dense", .infer = infer_dense, .cost = matmul_cost},
    {.name = "EmbeddingLookup", .infer = infer_embedding_lookup, .cost = gather_cost},
    {.name = "FlashAttentionScore", .infer = infer_flash_attention, .unwritten_outputs = 3, .cost = attention_cost},
    {.name = "Gather", .infer = infer_gather, .cost = gather_cost},
    {.name = "GeLU", .infer = like_first, .in_place = {0, 0}},
    {.name = "GroupedMatmul", .infer = infer_grouped_matmul, .cost = matmul_cost},
    {.name = "LayerNorm", .infer = infer_layer_norm},
    {.name = "MatMul", .infer = infer_matmul, .cost = matmul_cost},
    {.name = "Mul", .infer = infer_broadcast},
    {.name = "PagedAttention", .infer = like_first, .cost = attention_cost},
    {.name = "PagedAttentionFloat32", .infer = like_first, .cost = attention_cost},
    {.name = "Reshape", .infer = infer_reshape, .is_view = true, .strided_inputs = 1},
    {.name = "ReshapeAndCache", .infer = like_first, .unwritten_outputs = 1, .cost = cache_cost},
    {.name = "ReshapeAndCacheFloat32", .infer = like_first, .unwritten_outputs = 1, .cost = cache_cost},
    {.name = "RmsNorm", .infer = infer_rms_norm},
    {.name = "SiLU", .infer = like_first},
    {.name = "Split", .infer = infer_split, .is_view = true, .strided_inputs = 1},
    {.name = "SplitWithSize", .infer = infer_split_with_size, .is_view = true, .strided_inputs = 1},
    {.name = "Swiglu", .infer = infer_swiglu},
};

}  // namespace

const Op* find_op(const std::string& name) {
  static const std::vector<Op> served = [] {
    std::vector<Op> with_bodies;
    for (Op op : ops) {
      op.body = find_body(op.name);
      with_bodies.push_back(op);
    }
    return with_bodies;
  }();
  const auto found = std::find_if(served.begin(), served.end(), [&](const Op& op) { return name == op.name; });
  return found == served.end() ? nullptr : &*found;
}

}  // namespace mindgen
