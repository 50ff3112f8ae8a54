// What the executor knows of each op: the shapes it gives, the kernel it calls, and what that costs.
#pragma once
#include "graph.h"

namespace mindgen {

struct Cost {
  int64_t bytes = 0;
  int64_t operations = 0;
};

// An output that may lie in the memory of an input.
struct InPlace {
  int output = kNowhere;
  int input = kNowhere;
};

struct Op {
  const char* name;
  // Sets the shapes of the outputs; of a view, its step and offset as well.
  void (*infer)(Graph& graph, const Node& node);
  // Calls the kernel; NULL for views, and for ops of the plugin, which are run by their body.
  int (*run)(Graph& graph, const Node& node) = nullptr;
  OpBody* body = nullptr;
  bool is_view = false;
  int strided_inputs = 0;     // so many of the first inputs may be strided views
  int unwritten_outputs = 0;  // so many of the first outputs are left alone by the kernel
  InPlace in_place{};
  Cost (*cost)(const Graph& graph, const Node& node) = nullptr;  // NULL: every tensor is touched once
};

// NULL when there is none of that name.
const Op* find_op(const std::string& name);

// fused_ops.cc: ops that fusion puts in the place of several.
namespace fused {
extern const Op linear;           // x, w, bias or none, residual or none -> y, possibly float32
extern const Op linear_swiglu;    // x, w, bias or none -> y
extern const Op rotary_and_cache; // query, key, value, cos, sin, slots, caches (2), gammas (2) or none, epsilon,
                                  // interleaved -> query
extern const Op add_lora;         // x, y, of each level: group_ends, a, b of each part -> y, in place
extern const Op contiguous;       // x -> a copy whose rows follow each other
}  // namespace fused

// costs.cc
Cost tensor_cost(const Graph& graph, const Node& node);
Cost matmul_cost(const Graph& graph, const Node& node);
Cost gather_cost(const Graph& graph, const Node& node);
Cost cache_cost(const Graph& graph, const Node& node);
Cost rotary_and_cache_cost(const Graph& graph, const Node& node);
Cost attention_cost(const Graph& graph, const Node& node);
// How many inputs of AddLora belong to a level.
size_t lora_level_inputs(const Graph& graph, const Node& node);

Cost add_lora_cost(const Graph& graph, const Node& node);

}  // namespace mindgen
