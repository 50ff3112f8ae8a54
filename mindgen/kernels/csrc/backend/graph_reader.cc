#include "graph_reader.h"

#include "mindspore/core/include/ir/graph_utils.h"
#include "mindspore/core/include/ir/primitive.h"
#include "mindspore/core/include/utils/anf_utils.h"

namespace mindgen {
namespace {

using namespace mindspore;

const std::pair<TypeId, mg_dtype> kTypes[] = {
    {kNumberTypeFloat32, MG_FLOAT32}, {kNumberTypeBFloat16, MG_BFLOAT16}, {kNumberTypeFloat16, MG_FLOAT16},
    {kNumberTypeFloat64, MG_FLOAT64}, {kNumberTypeInt32, MG_INT32},       {kNumberTypeInt64, MG_INT64},
    {kNumberTypeBool, MG_BOOL},       {kNumberTypeInt8, MG_INT8},         {kNumberTypeInt16, MG_INT16},
    {kNumberTypeUInt8, MG_UINT8},     {kNumberTypeUInt16, MG_UINT16},     {kNumberTypeUInt32, MG_UINT32},
    {kNumberTypeUInt64, MG_UINT64}};

mg_tensor_type tensor_type(TypeId type, const ShapeVector& shape) {
  mg_tensor_type described{dtype_of(type), static_cast<int>(shape.size()), {}};
  if (shape.size() > MG_MAX_AXES) throw NotServed("a tensor of " + std::to_string(shape.size()) + " axes");
  for (size_t axis = 0; axis < shape.size(); axis++) {
    if (shape[axis] < -1) throw NotServed("a tensor with an unknown number of axes");
    described.shape[axis] = shape[axis];
  }
  return described;
}

// The types of the tensors that an abstract value holds, tuples laid flat.
void add_types(const abstract::AbstractBasePtr& abstract, std::vector<mg_tensor_type>* types) {
  if (abstract == nullptr) throw NotServed("a value without a type");
  if (abstract->isa<abstract::AbstractSequence>()) {
    const auto sequence = abstract->cast<abstract::AbstractSequencePtr>();
    if (sequence->dynamic_len()) throw NotServed("a tuple of unknown length");
    for (const auto& element : sequence->elements()) add_types(element, types);
    return;
  }
  if (!abstract->isa<abstract::AbstractTensor>()) throw NotServed("a value that is no tensor");
  const TypePtr element = abstract->cast<abstract::AbstractTensorPtr>()->element()->BuildType();
  types->push_back(tensor_type(element->type_id(), abstract->BuildShape()->GetShapeVector()));
}

bool is_monad(const AnfNodePtr& node) {
  return node->abstract() != nullptr && node->abstract()->isa<abstract::AbstractMonad>();
}

// A custom op is known by the function it calls, as path:function.
std::string op_name(const PrimitivePtr& primitive) {
  const ValuePtr function = primitive->GetAttr("func_name");
  if (primitive->name() != "Custom" || function == nullptr) return primitive->name();
  const std::string path_and_name = GetValue<std::string>(function);
  return path_and_name.substr(path_and_name.rfind(':') + 1);
}

int64_t integer(const ValuePtr& value) {
  if (value->isa<Int64Imm>()) return GetValue<int64_t>(value);
  if (value->isa<Int32Imm>()) return GetValue<int32_t>(value);
  throw NotServed("a constant of type " + value->type_name());
}

}  // namespace

mg_dtype dtype_of(TypeId type) {
  for (const auto& known : kTypes) {
    if (known.first == type) return known.second;
  }
  throw NotServed("dtype " + TypeIdToString(type));
}

TypeId type_id_of(mg_dtype dtype) {
  for (const auto& known : kTypes) {
    if (known.second == dtype) return known.first;
  }
  throw NotServed("dtype number " + std::to_string(dtype));
}

void GraphReader::read(const FuncGraphPtr& func_graph) {
  add_parameters(func_graph);
  for (const AnfNodePtr& node : TopoSort(func_graph->get_return())) {
    if (node->isa<CNode>() && node != func_graph->get_return()) add_node(node->cast<CNodePtr>());
  }
  const std::vector<int> outputs = values_of(func_graph->output());
  if (executor_.set_outputs(graph_, outputs.data(), static_cast<int>(outputs.size())) != MG_OK ||
      executor_.compile(graph_) != MG_OK) {
    throw NotServed(executor_.last_error());
  }
}

void GraphReader::add_parameters(const FuncGraphPtr& func_graph) {
  for (const AnfNodePtr& parameter : func_graph->parameters()) {
    if (is_monad(parameter)) continue;
    std::vector<mg_tensor_type> types;
    add_types(parameter->abstract(), &types);
    if (types.size() != 1) throw NotServed("an input that is a tuple");
    values_[parameter.get()] = {checked(executor_.add_input(graph_, &types[0]))};
  }
}

void GraphReader::add_node(const CNodePtr& node) {
  const PrimitivePtr primitive = GetCNodePrimitive(node);
  if (primitive == nullptr) throw NotServed("a call of a graph within the graph");
  const std::string& op = primitive->name();
  if (op == "UpdateState") {
    values_[node.get()] = {};
  } else if (op == "Load") {
    values_[node.get()] = values_of(node->input(1));
    note_load(node);
  } else if (op == "Depend") {
    values_[node.get()] = values_of(node->input(1));
  } else if (op == "MakeTuple") {
    std::vector<int> elements;
    for (size_t i = 1; i < node->size(); i++) {
      for (int value : values_of(node->input(i))) elements.push_back(value);
    }
    values_[node.get()] = elements;
  } else if (op == "TupleGetItem") {
    const std::vector<int> elements = values_of(node->input(1));
    const int64_t index = integer(node->input(2)->cast<ValueNodePtr>()->value());
    if (index < 0 || index >= static_cast<int64_t>(elements.size())) throw NotServed("a tuple within a tuple");
    values_[node.get()] = {elements[index]};
  } else if (op == "TensorToTuple") {
    add_tuple_of_tensor(node);
  } else {
    add_op(node, primitive);
  }
}

// Lengths of sequences, of which attention takes a tuple; for the executor that is a vector of int64.
void GraphReader::add_tuple_of_tensor(const CNodePtr& node) {
  const std::vector<int> inputs = {values_of(node->input(1)).at(0), checked(executor_.add_int(graph_, kNumberTypeInt64))};
  const mg_tensor_type type{MG_INT64, 1, {-1}};
  values_[node.get()] = {checked(executor_.add_node(graph_, "Cast", node->fullname_with_scope().c_str(), inputs.data(),
                                                    2, &type, 1))};
}

void GraphReader::add_op(const CNodePtr& node, const PrimitivePtr& primitive) {
  std::vector<int> inputs;
  for (size_t i = 1; i < node->size(); i++) {
    for (int value : values_of(node->input(i))) inputs.push_back(value);
  }
  std::vector<mg_tensor_type> outputs;
  add_types(node->abstract(), &outputs);
  const int first =
      executor_.add_node(graph_, op_name(primitive).c_str(), node->fullname_with_scope().c_str(), inputs.data(),
                         static_cast<int>(inputs.size()), outputs.data(), static_cast<int>(outputs.size()));
  if (first < 0) throw NotServed(executor_.last_error());
  std::vector<int>& values = values_[node.get()];
  for (size_t i = 0; i < outputs.size(); i++) values.push_back(first + static_cast<int>(i));
  note_writes(node, primitive);
}

void GraphReader::note_load(const CNodePtr& node) {
  AnfNode* parameter = node->input(1).get();
  loads_[node.get()] = {parameter, versions_[parameter]};
}

void GraphReader::note_writes(const CNodePtr& node, const PrimitivePtr& primitive) {
  const ValuePtr writes = primitive->GetAttr("side_effect_mem");
  if (writes == nullptr || !GetValue<bool>(writes)) return;
  for (size_t i = 1; i < node->size(); i++) {
    if (node->input(i)->isa<Parameter>()) versions_[node->input(i).get()]++;
  }
}

std::vector<int> GraphReader::values_of(const AnfNodePtr& node) {
  if (is_monad(node)) return {};
  if (node->isa<ValueNode>()) return add_value_node(node->cast<ValueNodePtr>()->value());
  const auto load = loads_.find(node.get());
  if (load != loads_.end() && load->second.version != versions_[load->second.parameter]) {
    throw NotServed("a parameter's value from before it was overwritten");
  }
  const auto found = values_.find(node.get());
  if (found == values_.end()) throw NotServed("a value of unknown origin: " + node->DebugString());
  return found->second;
}

std::vector<int> GraphReader::add_value_node(const ValuePtr& value) {
  if (value->isa<None>()) return {checked(executor_.add_none(graph_))};
  if (value->isa<BoolImm>()) return {checked(executor_.add_bool(graph_, GetValue<bool>(value)))};
  if (value->isa<FP32Imm>()) return {checked(executor_.add_float(graph_, GetValue<float>(value)))};
  if (value->isa<tensor::Tensor>()) {
    const auto tensor = value->cast<tensor::TensorPtr>();
    const mg_tensor_type type = tensor_type(tensor->data_type(), tensor->shape());
    return {checked(executor_.add_constant(graph_, &type, tensor->data_c()))};
  }
  if (value->isa<ValueSequence>()) {
    std::vector<int64_t> integers;
    for (const ValuePtr& element : value->cast<ValueSequencePtr>()->value()) integers.push_back(integer(element));
    return {checked(executor_.add_ints(graph_, integers.data(), static_cast<int>(integers.size())))};
  }
  return {checked(executor_.add_int(graph_, integer(value)))};
}

int GraphReader::checked(int value) const {
  if (value < 0) throw NotServed(executor_.last_error());
  return value;
}

}  // namespace mindgen
