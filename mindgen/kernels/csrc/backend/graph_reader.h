// Describes a graph of MindSpore to mindgen's executor.
#pragma once
#include <string>
#include <unordered_map>
#include <vector>

#include "mindspore/include/custom_backend_api.h"
#include "mindgen_executor.h"
#include "mindspore/core/include/ir/anf.h"
#include "mindspore/core/include/ir/func_graph.h"

namespace mindgen {

// What the executor does not run; MindSpore's own runtime may.
struct NotServed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

mg_dtype dtype_of(mindspore::TypeId type);
mindspore::TypeId type_id_of(mg_dtype dtype);

class GraphReader {
 public:
  GraphReader(const mg_executor& executor, mg_graph* graph) : executor_(executor), graph_(graph) {}

  // Adds all of the graph. Throws NotServed.
  void read(const mindspore::FuncGraphPtr& func_graph);

 private:
  using Node = mindspore::AnfNodePtr;

  void add_parameters(const mindspore::FuncGraphPtr& func_graph);
  void add_node(const mindspore::CNodePtr& node);
  void add_tuple_of_tensor(const mindspore::CNodePtr& node);
  void add_op(const mindspore::CNodePtr& node, const mindspore::PrimitivePtr& primitive);
  void note_load(const mindspore::CNodePtr& node);
  void note_writes(const mindspore::CNodePtr& node, const mindspore::PrimitivePtr& primitive);
  // The values of an input: one, those of a tuple, or none for what only orders side effects.
  std::vector<int> values_of(const Node& node);
  std::vector<int> add_value_node(const mindspore::ValuePtr& value);
  int checked(int value) const;

  const mg_executor& executor_;
  mg_graph* const graph_;
  std::unordered_map<mindspore::AnfNode*, std::vector<int>> values_;
  // Parameters are loaded as they are at that moment; the executor has but one version of each, the newest.
  std::unordered_map<mindspore::AnfNode*, int> versions_;
  struct Loaded {
    mindspore::AnfNode* parameter;
    int version;
  };
  std::unordered_map<mindspore::AnfNode*, Loaded> loads_;
};

}  // namespace mindgen
