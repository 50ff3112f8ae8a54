// MindSpore's graph backend "mindgen": graphs that mindgen's executor serves run on it, all others on MindSpore's own
// runtime. At jit_level O0 no ops are fused.
#include <chrono>
#include <iostream>
#include <map>
#include <mutex>

#include "graph_reader.h"

namespace {

// Set by mindgen_backend_bind, before MindSpore builds any graph.
const mg_executor* bound_executor = nullptr;

}  // namespace

extern "C" __attribute__((visibility("default"))) void mindgen_backend_bind(const mg_executor* executor) {
  bound_executor = executor;
}

// This thread's last run through MindSpore; its data is good until the next.
static thread_local mg_graph_call last_run{};

extern "C" __attribute__((visibility("default"))) const mg_graph_call* mindgen_backend_last_run() { return &last_run; }

namespace mindgen {
namespace {

using namespace mindspore;
using backend::BackendGraphId;
using backend::BackendManager;
using backend::RunningStatus;

const char kUnfused[] = "O0";

tensor::TensorPtr tensor_in(const BaseRef& reference) {
  if (utils::isa<tensor::TensorPtr>(reference)) return utils::cast<tensor::TensorPtr>(reference);
  if (utils::isa<ValuePtr>(reference)) {
    const auto tensor = utils::cast<ValuePtr>(reference)->cast<tensor::TensorPtr>();
    if (tensor != nullptr) return tensor;
  }
  MS_EXCEPTION(TypeError) << "an input of the graph is no tensor: " << reference.ToString();
}

// A graph on the executor, or, where that does not serve it, the number of MindSpore's own.
class BuiltGraph {
 public:
  BuiltGraph(const FuncGraphPtr& func_graph, backend::BackendJitConfig config) {
    const auto start = std::chrono::steady_clock::now();
    try {
      graph_ = bound_executor->create(config.jit_level != kUnfused);
      GraphReader(*bound_executor, graph_).read(func_graph);
      gives_tuple_ = func_graph->output()->abstract()->isa<abstract::AbstractSequence>();
      for (const AnfNodePtr& parameter : func_graph->parameters()) {
        if (parameter->abstract() == nullptr || !parameter->abstract()->isa<abstract::AbstractMonad>()) num_inputs_++;
      }
      lowering_seconds_ = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    } catch (const NotServed& reason) {
      release();
      std::cerr << "mindgen: MindSpore's runtime runs this graph, for mindgen's executor does not serve it: "
                << reason.what() << std::endl;
      config.jit_level = kUnfused;
      own_ = BackendManager::GetInstance().Build(func_graph, config, backend::kMSBackendName);
    }
  }
  ~BuiltGraph() {
    if (graph_ == nullptr) BackendManager::GetInstance().ClearGraph(own_.first, own_.second);
    release();
  }

  RunningStatus run(const VectorRef& inputs, VectorRef* outputs) {
    last_run = {};
    if (graph_ == nullptr) return BackendManager::GetInstance().Run(own_.first, own_.second, inputs, outputs);
    std::lock_guard<std::mutex> lock(running_);
    static thread_local std::unique_ptr<Run> kept;  // what last_run points to
    kept = std::make_unique<Run>(inputs, num_inputs_);
    Run& run = *kept;
    const bool has_lock = PyGILState_Check() != 0;
    PyThreadState* const released = has_lock ? PyEval_SaveThread() : nullptr;  // other threads of Python go on
    const int status = bound_executor->run(graph_, run.data.data(), run.shapes.get(), static_cast<int>(num_inputs_),
                                           Run::allocate, &run);
    if (has_lock) PyEval_RestoreThread(released);
    if (status != MG_OK) MS_EXCEPTION(RuntimeError) << bound_executor->last_error();
    VectorRef results;
    for (const auto& output : run.outputs) results.push_back(output.second);
    if (gives_tuple_) {
      outputs->push_back(results);
    } else {
      outputs->push_back(results[0]);
    }
    run.outputs.clear();
    last_run = {graph_, static_cast<int>(num_inputs_), run.data.data(), run.shapes.get(), lowering_seconds_};
    return backend::kRunningSuccess;
  }

 private:
  // The memory of one run.
  struct Run {
    std::vector<void*> data;
    std::unique_ptr<int64_t[][MG_MAX_AXES]> shapes;
    std::map<int, tensor::TensorPtr> outputs;  // by number

    Run(const VectorRef& inputs, size_t count) : shapes(new int64_t[count][MG_MAX_AXES]) {
      for (size_t i = 0; i < count; i++) {
        const tensor::TensorPtr tensor = tensor_in(inputs[i]);
        if (!tensor->is_contiguous()) MS_EXCEPTION(ValueError) << "input " << i << " of the graph is a view: copy it";
        data.push_back(tensor->data_c());
        const ShapeVector& shape = tensor->shape();
        std::copy(shape.begin(), shape.end(), shapes[i]);
      }
    }

    static void* allocate(void* context, int index, const mg_tensor_type* type) {
      const ShapeVector shape(type->shape, type->shape + type->ndim);
      const auto tensor = std::make_shared<tensor::Tensor>(type_id_of(type->dtype), shape);
      static_cast<Run*>(context)->outputs[index] = tensor;
      return tensor->data_c();
    }
  };

  void release() {
    if (graph_ != nullptr) bound_executor->destroy(graph_);
    graph_ = nullptr;
  }

  std::mutex running_;
  mg_graph* graph_ = nullptr;
  size_t num_inputs_ = 0;
  bool gives_tuple_ = false;
  double lowering_seconds_ = 0;
  std::pair<backend::BackendType, BackendGraphId> own_{};
};

class Backend : public backend::BackendBase {
 public:
  BackendGraphId Build(const FuncGraphPtr& func_graph, const backend::BackendJitConfig& config) override {
    if (bound_executor == nullptr) MS_EXCEPTION(RuntimeError) << "mindgen_backend_bind was not called";
    auto built = std::make_shared<BuiltGraph>(func_graph, config);
    std::lock_guard<std::mutex> lock(mutex_);
    graphs_[next_id_] = built;
    return next_id_++;
  }

  RunningStatus Run(BackendGraphId id, const VectorRef& inputs, VectorRef* outputs) override {
    return find(id)->run(inputs, outputs);
  }

  void Clear() override {
    std::lock_guard<std::mutex> lock(mutex_);
    graphs_.clear();
  }

  void ClearGraph(BackendGraphId id) override {
    std::lock_guard<std::mutex> lock(mutex_);
    graphs_.erase(id);
  }

 private:
  std::shared_ptr<BuiltGraph> find(BackendGraphId id) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = graphs_.find(id);
    if (found == graphs_.end()) MS_EXCEPTION(RuntimeError) << "there is no graph number " << id;
    return found->second;
  }

  std::mutex mutex_;
  std::map<BackendGraphId, std::shared_ptr<BuiltGraph>> graphs_;
  BackendGraphId next_id_ = 0;
};

const backend::BackendRegister registered("mindgen", [] { return std::make_shared<Backend>(); });

}  // namespace
}  // namespace mindgen
