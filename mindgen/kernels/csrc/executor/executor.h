// A compiled graph: its nodes are run in order, on a workspace that is laid out anew when the shapes of inputs change.
#pragma once
#include <mutex>

#include "graph.h"

namespace mindgen {

class Executor {
 public:
  Graph graph;

  explicit Executor(bool fuse) : fuse_(fuse) {}
  // Of a compiled graph.
  Executor(const Executor& compiled);

  // Throws Refused when the graph cannot be run.
  void compile();
  // Runs each of the parts on a thread of its own; data and shapes (num_parts, inputs). The entries that they give to an
  // output follow each other. Throws Refused when a kernel refuses its inputs; the next run starts afresh.
  void run(void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_parts, mg_allocate_output* allocate,
           void* context);
  std::string describe() const;

  std::string description;  // as last asked for

 private:
  void mark_views();
  void copy_strided_inputs();
  void copy_outputs_without_memory();
  void check_outputs() const;
  void bind_constants();
  OpCall call_of(const Node& node);

  std::vector<Executor*> parts(int count);
  void prepare(void* const* data, const int64_t (*shapes)[MG_MAX_AXES]);
  bool bind_inputs(void* const* data, const int64_t (*shapes)[MG_MAX_AXES]);
  void infer_shapes();
  void lay_out_workspace();
  void bind_results();
  void run_nodes();
  void run_node(size_t index);

  const bool fuse_;
  std::vector<OpCall> calls_;          // by node
  std::vector<int64_t> slot_offsets_;  // one more than there are slots
  std::unique_ptr<char, void (*)(void*)> workspace_{nullptr, std::free};
  int64_t workspace_bytes_ = 0;
  bool shapes_known_ = false;
  std::vector<std::unique_ptr<Executor>> copies_;  // for all parts of a run but the first
  std::mutex running_;
};

}  // namespace mindgen
