#include "graph.h"

namespace mindgen {
namespace {

struct DtypeInfo {
  const char* name;
  int64_t size;
};

// In the order of mg_dtype.
const DtypeInfo dtypes[] = {{"float32", 4}, {"bfloat16", 2}, {"float16", 2}, {"float64", 8}, {"int32", 4},
                            {"int64", 8},   {"bool", 1},     {"int8", 1},    {"int16", 2},   {"uint8", 1},
                            {"uint16", 2},  {"uint32", 4},   {"uint64", 8}};

}  // namespace

int64_t item_size(mg_dtype dtype) { return dtypes[dtype].size; }
const char* dtype_name(mg_dtype dtype) { return dtypes[dtype].name; }

Shape::Shape(std::initializer_list<int64_t> sizes) {
  for (int64_t size : sizes) dims[ndim++] = size;
}

int64_t Shape::elements(int first_axis) const {
  int64_t product = 1;
  for (int axis = first_axis; axis < ndim; axis++) product *= dims[axis];
  return product;
}

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
