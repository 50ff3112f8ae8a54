// The C interface of the executor: nothing is thrown across it.
#include "dispatch.h"
#include "executor.h"
#include "profile.h"

using namespace mindgen;

struct mg_graph : Executor {
  using Executor::Executor;
};

namespace mindgen {

Profile& profile() {
  static Profile recorded;
  return recorded;
}

}  // namespace mindgen

namespace {

// body's result, or `failed` with the reason in mg_last_error().
template <class Body>
int guarded(int failed, const Body& body) {
  try {
    return body();
  } catch (const std::exception& error) {
    fail("%s", error.what());
    return failed;
  }
}

bool is_value(const mg_graph* graph, int value) {
  return value >= 0 && value < static_cast<int>(graph->graph.values.size());
}

void check_type(const mg_tensor_type& type) {
  if (type.dtype < MG_FLOAT32 || type.dtype > MG_UINT64) throw Refused("there is no such dtype");
  if (type.ndim < 0 || type.ndim > MG_MAX_AXES) {
    throw Refused("a tensor of " + std::to_string(type.ndim) + " axes is not served");
  }
}

}  // namespace

extern "C" {

mg_graph* mg_graph_create(bool fuse) { return new mg_graph(fuse); }
void mg_graph_destroy(mg_graph* graph) { delete graph; }

int mg_graph_add_input(mg_graph* graph, const mg_tensor_type* type) {
  return guarded(-1, [&] {
    check_type(*type);
    const int value = graph->graph.add_result(*type);
    graph->graph.values[value].kind = Value::kInput;
    graph->graph.inputs.push_back(value);
    return value;
  });
}

int mg_graph_add_constant(mg_graph* graph, const mg_tensor_type* type, const void* data) {
  return guarded(-1, [&] {
    check_type(*type);
    const int number = graph->graph.add_result(*type);
    Value& value = graph->graph.values[number];
    value.kind = Value::kConstant;
    Shape shape;
    for (int axis = 0; axis < type->ndim; axis++) shape.dims[shape.ndim++] = type->shape[axis];
    value.tensor.set_shape(shape);
    const char* bytes = static_cast<const char*>(data);
    value.constant.assign(bytes, bytes + value.tensor.bytes());
    return number;
  });
}

int mg_graph_add_none(mg_graph* graph) { return graph->graph.add_scalar(std::monostate()); }
int mg_graph_add_bool(mg_graph* graph, bool value) { return graph->graph.add_scalar(value); }
int mg_graph_add_int(mg_graph* graph, int64_t value) { return graph->graph.add_scalar(value); }
int mg_graph_add_float(mg_graph* graph, float value) { return graph->graph.add_scalar(value); }
int mg_graph_add_ints(mg_graph* graph, const int64_t* values, int count) {
  return graph->graph.add_scalar(std::vector<int64_t>(values, values + count));
}

int mg_graph_add_node(mg_graph* graph, const char* op, const char* name, const int* inputs, int num_inputs,
                      const mg_tensor_type* outputs, int num_outputs) {
  return guarded(-1, [&] {
    Node node{find_op(op), name, {inputs, inputs + num_inputs}, {}};
    if (!node.op) throw Refused(std::string("the executor does not know the op ") + op);
    for (int input : node.inputs) {
      if (!is_value(graph, input)) throw Refused("there is no value " + std::to_string(input));
    }
    for (int i = 0; i < num_outputs; i++) {
      check_type(outputs[i]);
      node.outputs.push_back(graph->graph.add_result(outputs[i]));
    }
    graph->graph.nodes.push_back(node);
    return num_outputs > 0 ? node.outputs[0] : -1;
  });
}

int mg_graph_set_outputs(mg_graph* graph, const int* values, int count) {
  return guarded(MG_ERROR, [&] {
    for (int i = 0; i < count; i++) {
      if (!is_value(graph, values[i]) || graph->graph.values[values[i]].kind == Value::kScalar) {
        throw Refused("output " + std::to_string(i) + " is no tensor");
      }
    }
    graph->graph.outputs.assign(values, values + count);
    return MG_OK;
  });
}

int mg_graph_compile(mg_graph* graph) {
  return guarded(MG_ERROR, [&] {
    graph->compile();
    return MG_OK;
  });
}

int mg_graph_run_parts(mg_graph* graph, void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_inputs,
                       int num_parts, mg_allocate_output* allocate, void* context) {
  return guarded(MG_ERROR, [&] {
    if (num_inputs != static_cast<int>(graph->graph.inputs.size())) {
      throw Refused("the graph has " + std::to_string(graph->graph.inputs.size()) + " inputs, not " +
                    std::to_string(num_inputs));
    }
    if (num_parts < 1) throw Refused("a run has no part");
    graph->run(data, shapes, num_parts, allocate, context);
    return MG_OK;
  });
}

int mg_graph_run(mg_graph* graph, void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_inputs,
                 mg_allocate_output* allocate, void* context) {
  return mg_graph_run_parts(graph, data, shapes, num_inputs, 1, allocate, context);
}

const char* mg_graph_describe(mg_graph* graph) {
  graph->description = graph->describe();
  return graph->description.c_str();
}

void mg_profile_start(void) { profile().start(); }
int64_t mg_profile_stop(void) { return profile().stop(); }
void mg_profile_read(mg_kernel_call* calls, int64_t count) { profile().read(calls, count); }

const mg_executor* mg_executor_functions(void) {
  static const mg_executor functions = {
      mg_graph_create,  mg_graph_destroy,   mg_graph_add_input, mg_graph_add_constant, mg_graph_add_none,
      mg_graph_add_bool, mg_graph_add_int,  mg_graph_add_float, mg_graph_add_ints,     mg_graph_add_node,
      mg_graph_set_outputs, mg_graph_compile, mg_graph_run,     mg_last_error};
  return &functions;
}

}  // extern "C"
