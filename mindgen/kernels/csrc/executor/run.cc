// One run of a compiled graph.
#include <algorithm>
#include <cstring>

#include "executor.h"
#include "parallel.h"
#include "profile.h"

namespace mindgen {
namespace {

constexpr int64_t kAlignment = 64;

int64_t round_up(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Memory for the outputs of all parts, one after the other.
void place_outputs(const std::vector<Executor*>& parts, mg_allocate_output* allocate, void* context) {
  const Graph& first = parts[0]->graph;
  for (size_t i = 0; i < first.outputs.size(); i++) {
    const int output = first.outputs[i];
    mg_tensor_type type = first.values[output].type;
    std::copy_n(first.tensor(output).shape.dims, type.ndim, type.shape);
    int64_t bytes = 0, entries = 0;
    for (const Executor* part : parts) {
      entries += part->graph.tensor(output).shape.first();
      bytes += part->graph.tensor(output).bytes();
    }
    if (type.ndim > 0) type.shape[0] = entries;
    char* data = static_cast<char*>(allocate(context, static_cast<int>(i), &type));
    if (!data && bytes > 0) throw Refused("no memory for an output");
    for (Executor* part : parts) {
      Tensor& tensor = part->graph.tensor(output);
      tensor.data = data;
      data += tensor.bytes();
    }
  }
}

}  // namespace

void Executor::run(void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_parts,
                   mg_allocate_output* allocate, void* context) {
  std::lock_guard<std::mutex> lock(running_);
  const std::vector<Executor*> all = parts(num_parts);
  for (int i = 0; i < num_parts; i++) {
    const size_t first = i * graph.inputs.size();
    all[i]->prepare(data + first, shapes + first);
  }
  place_outputs(all, allocate, context);
  std::vector<std::exception_ptr> failures(num_parts);
  parallel_for(num_parts, num_parts, [&](int64_t i) {
    try {
      all[i]->bind_results();
      all[i]->run_nodes();
    } catch (...) {
      failures[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

std::vector<Executor*> Executor::parts(int count) {
  while (static_cast<int>(copies_.size()) + 1 < count) copies_.push_back(std::make_unique<Executor>(*this));
  std::vector<Executor*> all{this};
  for (int i = 1; i < count; i++) all.push_back(copies_[i - 1].get());
  return all;
}

void Executor::prepare(void* const* data, const int64_t (*shapes)[MG_MAX_AXES]) {
  const bool same_shapes = bind_inputs(data, shapes);
  if (same_shapes && shapes_known_) return;
  shapes_known_ = false;
  infer_shapes();
  lay_out_workspace();
  shapes_known_ = true;
}

// Whether all inputs have the shapes of the run before.
bool Executor::bind_inputs(void* const* data, const int64_t (*shapes)[MG_MAX_AXES]) {
  bool same_shapes = true;
  for (size_t i = 0; i < graph.inputs.size(); i++) {
    const Value& value = graph.values[graph.inputs[i]];
    Tensor& tensor = graph.tensor(graph.inputs[i]);
    tensor.data = data[i];
    tensor.dtype = value.type.dtype;
    if (tensor.shape.ndim == value.type.ndim &&
        std::equal(tensor.shape.dims, tensor.shape.dims + tensor.shape.ndim, shapes[i])) {
      continue;
    }
    same_shapes = false;
    Shape shape;
    for (int axis = 0; axis < value.type.ndim; axis++) shape.dims[shape.ndim++] = shapes[i][axis];
    tensor.set_shape(shape);
  }
  return same_shapes;
}

void Executor::infer_shapes() {
  for (size_t index = 0; index < graph.nodes.size(); index++) {
    const Node& node = graph.nodes[index];
    try {
      node.op->infer(calls_[index]);
    } catch (const Refused& refused) {
      throw Refused(std::string(node.op->name) + " (" + node.name + "): " + refused.what());
    }
  }
}

void Executor::lay_out_workspace() {
  std::vector<int64_t> bytes(slot_offsets_.size(), 0);
  for (const Value& value : graph.values) {
    if (value.slot != kNowhere) bytes[value.slot] = std::max(bytes[value.slot], value.tensor.bytes());
  }
  int64_t total = 0;
  for (size_t slot = 0; slot < slot_offsets_.size(); slot++) {
    slot_offsets_[slot] = total;
    total += round_up(bytes[slot], kAlignment);
  }
  if (total <= workspace_bytes_) return;
  workspace_.reset();
  workspace_bytes_ = round_up(total + total / 8, 4096);  // some room, for prompts grow by a little often
  workspace_.reset(static_cast<char*>(std::aligned_alloc(4096, workspace_bytes_)));
  if (!workspace_) {
    workspace_bytes_ = 0;
    throw Refused("no memory for " + std::to_string(total) + " bytes of intermediate results");
  }
}

void Executor::bind_results() {
  for (const Node& node : graph.nodes) {
    for (int index : node.outputs) {
      Value& value = graph.values[index];
      if (value.base != kNowhere) {
        value.tensor.data = static_cast<char*>(graph.tensor(value.base).data) + value.tensor.offset;
      } else if (value.output == kNowhere) {
        value.tensor.data = value.slot == kNowhere ? nullptr : workspace_.get() + slot_offsets_[value.slot];
      }
    }
  }
}

void Executor::run_nodes() {
  for (size_t index = 0; index < graph.nodes.size(); index++) {
    if (!graph.nodes[index].op->is_view) run_node(index);
  }
}

void Executor::run_node(size_t index) {
  const Node& node = graph.nodes[index];
  const bool profiled = profile().recording();
  const int64_t start = profiled ? nanoseconds_now() : 0;
  const OpCall& call = calls_[index];
  const int status = node.op->run(call);
  if (status != MG_OK) throw Refused(std::string(node.op->name) + " (" + node.name + "): " + mg_last_error());
  if (!profiled) return;
  const int64_t end = nanoseconds_now();
  const Cost cost = node.op->cost_of(call);
  profile().add({node.op->name, node.name.c_str(), start, end - start, cost.bytes, cost.operations, 0});
}

}  // namespace mindgen
