#include "fusion.h"

#include "rewriter.h"

namespace mindgen {
namespace {

// Each of these looks whether its pattern ends in the node, and fuses it if so.
using Pattern = void(Rewriter& r, int index);

// MatMul(x, w, false, true), which reads rows of weights
void fuse_linear(Rewriter& r, int index) {
  if (!r.is(index, "MatMul")) return;
  const Node& matmul = r.node(index);
  if (r.graph.scalar<bool>(matmul.inputs[2]) || !r.graph.scalar<bool>(matmul.inputs[3])) return;
  const int none = r.graph.add_scalar(std::monostate());
  r.replace({index}, {&fused::linear, matmul.name, {matmul.inputs[0], matmul.inputs[1], none, none}, matmul.outputs});
}

// Add(Linear(x, w), bias)
void fuse_bias(Rewriter& r, int index) {
  if (!r.is(index, "Add")) return;
  const Node add = r.node(index);
  for (int side = 0; side < 2; side++) {
    const int product = add.inputs[side], bias = add.inputs[1 - side];
    const int linear = r.producer(product, "Linear");
    if (linear == kNowhere || r.only_user(product, "Add") != index || r.type(bias).ndim != 1) continue;
    if (r.type(bias).dtype != r.type(product).dtype || r.type(bias).shape[0] != r.type(product).shape[1]) continue;
    Node fused = r.node(linear);
    if (!r.graph.is_none(fused.inputs[2])) continue;
    fused.inputs[2] = bias;
    fused.outputs = add.outputs;
    return r.replace({linear, index}, fused);
  }
}

// Cast(Linear(x, w, bias)) to float32: the sums as they are.
void fuse_cast(Rewriter& r, int index) {
  if (!r.is(index, "Cast")) return;
  const Node cast = r.node(index);
  const int linear = r.producer(cast.inputs[0], "Linear");
  if (linear == kNowhere || r.only_user(cast.inputs[0], "Cast") != index) return;
  Node fused = r.node(linear);
  if (!r.graph.is_none(fused.inputs[3]) || r.type(cast.outputs[0]).dtype != MG_FLOAT32) return;
  fused.outputs = cast.outputs;
  r.replace({linear, index}, fused);
}

// Swiglu(Linear(x, w, bias))
void fuse_swiglu(Rewriter& r, int index) {
  if (!r.is(index, "Swiglu")) return;
  const Node swiglu = r.node(index);
  const int linear = r.producer(swiglu.inputs[0], "Linear");
  if (linear == kNowhere || r.only_user(swiglu.inputs[0], "Swiglu") != index) return;
  const int64_t axis = r.graph.scalar<int64_t>(swiglu.inputs[1]);
  const std::vector<int> inputs = r.node(linear).inputs;
  if ((axis != -1 && axis != 1) || !r.graph.is_none(inputs[3])) return;
  r.replace({linear, index},
            {&fused::linear_swiglu, r.node(linear).name, {inputs[0], inputs[1], inputs[2]}, swiglu.outputs});
}

// The product of rows grouped by adapter with weights (E, K, N).
bool is_grouped(const Rewriter& r, int index) {
  if (!r.is(index, "GroupedMatmul")) return false;
  const Node& node = r.node(index);
  return node.inputs.size() == 12 && !r.graph.scalar<bool>(node.inputs[10]) && !r.graph.scalar<bool>(node.inputs[11]);
}

struct Lora {
  std::vector<int> nodes;
  std::vector<int> parts;  // of b
  int x, a, group_ends;
};

// delta = Concat(GroupedMatmul(part of low, b), ...) with low = GroupedMatmul(x, a); one part needs no Split and Concat.
// The only user of delta is of that op.
bool find_lora(const Rewriter& r, int delta, const char* user, Lora& lora) {
  const int concat = r.producer(delta, "Concat");
  std::vector<int> deltas = {delta};
  if (concat != kNowhere) {
    deltas.assign(r.node(concat).inputs.begin(), r.node(concat).inputs.end() - 1);
    lora.nodes.push_back(concat);
  }
  int split = kNowhere, low = kNowhere;
  for (size_t part = 0; part < deltas.size(); part++) {
    const int second = r.producer(deltas[part]);
    if (!is_grouped(r, second)) return false;
    if (r.only_user(deltas[part], concat == kNowhere ? user : "Concat") == kNowhere) return false;
    const Node& node = r.node(second);
    const int rows = node.inputs[0];
    if (r.only_user(rows, "GroupedMatmul") == kNowhere) return false;
    if (part > 0 && node.inputs[7] != lora.group_ends) return false;
    lora.group_ends = node.inputs[7];
    lora.parts.push_back(node.inputs[1]);
    lora.nodes.push_back(second);
    if (concat == kNowhere) {
      low = rows;
      continue;
    }
    const int from = r.producer(rows);
    if (part == 0) split = from;
    const bool in_order = r.is(from, "Split") && from == split && r.node(split).outputs.size() == deltas.size() &&
                          r.node(split).outputs[part] == rows;
    if (!in_order) return false;
    low = r.node(split).inputs[0];
  }
  if (split != kNowhere) lora.nodes.push_back(split);
  const int first = r.producer(low);
  if (!is_grouped(r, first) || r.node(first).inputs[7] != lora.group_ends) return false;
  if (r.only_user(low, split == kNowhere ? "GroupedMatmul" : "Split") == kNowhere) return false;
  lora.x = r.node(first).inputs[0];
  lora.a = r.node(first).inputs[1];
  lora.nodes.push_back(first);
  return true;
}

// The product that the value comes from, through any number of LoRA's updates.
int find_linear(const Rewriter& r, int value) {
  for (int lora; (lora = r.producer(value, "AddLora")) != kNowhere;) value = r.node(lora).inputs[1];
  return r.producer(value, "Linear");
}

int lora_level_inputs(const Rewriter& r, const Node& lora) {
  return fused::lora_level_inputs(static_cast<int>(lora.inputs.size()),
                                  [&](int i) { return r.type(lora.inputs[i]).dtype; });
}

// Add(y, LoRA's delta), where delta may be cast to y's dtype; y may have the levels before this one.
void fuse_lora(Rewriter& r, int index) {
  if (!r.is(index, "Add")) return;
  const Node add = r.node(index);
  for (int side = 0; side < 2; side++) {
    const int y = add.inputs[side], added = add.inputs[1 - side];
    if (!r.same_rows(y, added) || find_linear(r, y) == kNowhere || r.only_user(y, "Add") != index) continue;
    Lora lora{};
    const int cast = r.producer(added, "Cast");
    if (cast != kNowhere) {
      if (r.type(added).dtype != MG_FLOAT32 || r.only_user(added, "Add") != index) continue;
      lora.nodes.push_back(cast);
    }
    if (!find_lora(r, cast == kNowhere ? added : r.node(cast).inputs[0], cast == kNowhere ? "Add" : "Cast", lora)) continue;
    Node fused{&fused::add_lora, add.name, {lora.x, y}, add.outputs};
    const int before = r.producer(y, "AddLora");
    if (before != kNowhere && r.node(before).inputs[0] == lora.x &&
        lora_level_inputs(r, r.node(before)) == static_cast<int>(lora.parts.size()) + 2) {
      fused.inputs = r.node(before).inputs;
      lora.nodes.push_back(before);
    }
    fused.inputs.insert(fused.inputs.end(), {lora.group_ends, lora.a});
    fused.inputs.insert(fused.inputs.end(), lora.parts.begin(), lora.parts.end());
    lora.nodes.push_back(index);
    return r.replace(lora.nodes, fused);
  }
}

// AddRmsNorm(Linear(x, w), residual): the product adds the residual, and a plain norm follows. Not where LoRA's updates
// stand between: they come before the residual.
void fuse_residual(Rewriter& r, int index) {
  if (!r.is(index, "AddRmsNorm")) return;
  const Node norm = r.node(index);
  for (int side = 0; side < 2; side++) {
    const int product = norm.inputs[side], residual = norm.inputs[1 - side];
    if (!r.same_rows(product, residual) || r.only_user(product, "AddRmsNorm") != index) continue;
    const int linear = r.producer(product, "Linear");
    if (linear == kNowhere || !r.graph.is_none(r.node(linear).inputs[3]) || r.producer(residual) >= linear) continue;
    r.graph.nodes[linear].inputs[3] = residual;
    r.replace({index}, {find_op("RmsNorm"), norm.name, {product, norm.inputs[2], norm.inputs[3]},
                        {norm.outputs[0], norm.outputs[1]}});
    std::replace(r.graph.outputs.begin(), r.graph.outputs.end(), norm.outputs[2], product);
    return r.replace_uses(norm.outputs[2], product);
  }
}

// Add(Linear(x, w), residual)
void fuse_sum(Rewriter& r, int index) {
  if (!r.is(index, "Add")) return;
  const Node add = r.node(index);
  for (int side = 0; side < 2; side++) {
    const int product = add.inputs[side], residual = add.inputs[1 - side];
    if (!r.same_rows(product, residual) || r.only_user(product, "Add") != index) continue;
    const int linear = r.producer(product, "Linear");
    if (linear == kNowhere || !r.graph.is_none(r.node(linear).inputs[3]) || r.producer(residual) >= linear) continue;
    Node fused = r.node(linear);
    fused.inputs[3] = residual;
    fused.outputs = add.outputs;
    return r.replace({linear, index}, fused);
  }
}

// Heads that are normalized before their rotation: Reshape(RmsNorm(Reshape(x), gamma)), or x alone.
struct Heads {
  int x;
  int gamma = kNowhere, epsilon = kNowhere;
  std::vector<int> nodes{};
};

Heads find_heads(const Rewriter& r, int rows) {
  Heads plain{rows}, normed{rows};
  const int back = r.producer(rows, "Reshape");
  const int norm = back == kNowhere ? kNowhere : r.producer(r.node(back).inputs[0], "RmsNorm");
  const int heads = norm == kNowhere ? kNowhere : r.producer(r.node(norm).inputs[0], "Reshape");
  if (heads == kNowhere || r.type(r.node(norm).inputs[0]).ndim != 3) return plain;
  if (r.only_user(r.node(norm).outputs[0], "Reshape") != back || !r.is_unused(r.node(norm).outputs[1])) return plain;
  if (r.only_user(r.node(heads).outputs[0], "RmsNorm") != norm) return plain;
  normed.x = r.node(heads).inputs[0];
  normed.gamma = r.node(norm).inputs[1];
  normed.epsilon = r.node(norm).inputs[2];
  normed.nodes = {back, norm, heads};
  return normed;
}

// ReshapeAndCache(ApplyRotaryPosEmb(query, key)[1], value): the rotation writes into the cache.
void fuse_rotary_and_cache(Rewriter& r, int index) {
  if (!r.is(index, "ReshapeAndCache") || !r.is_unused(r.node(index).outputs[0])) return;
  const Node cache = r.node(index);
  const int rotary = r.producer(cache.inputs[0], "ApplyRotaryPosEmb");
  if (rotary == kNowhere || r.only_user(cache.inputs[0], "ReshapeAndCache") != index) return;
  const Node rotation = r.node(rotary);
  const int query = rotation.inputs[0], key = rotation.inputs[1], value = cache.inputs[1];
  // A row of cos and sin for each token, and not a whole table.
  if (r.producer(rotation.inputs[2], "Gather") == kNowhere || r.type(query).ndim != 2 || r.type(key).ndim != 2) return;
  if (r.type(value).ndim != 2 || cache.inputs[0] != rotation.outputs[1]) return;
  if (r.is_used_before(rotation.outputs[0], index)) return;  // the fused op comes as late as the write
  const int64_t format = r.graph.scalar<int64_t>(rotation.inputs[5]);
  if (format != 2 && format != 3) return;
  Heads queries = find_heads(r, query), keys = find_heads(r, key);
  const bool both = queries.gamma != kNowhere && keys.gamma != kNowhere &&
                    r.graph.scalar<float>(queries.epsilon) == r.graph.scalar<float>(keys.epsilon) &&
                    r.only_user(query, "ApplyRotaryPosEmb") != kNowhere &&
                    r.only_user(key, "ApplyRotaryPosEmb") != kNowhere;
  if (!both) queries = {query}, keys = {key};
  std::vector<int> nodes = {rotary, index};
  nodes.insert(nodes.end(), queries.nodes.begin(), queries.nodes.end());
  nodes.insert(nodes.end(), keys.nodes.begin(), keys.nodes.end());
  const int none = r.graph.add_scalar(std::monostate());
  const int epsilon = both ? queries.epsilon : r.graph.add_scalar(0.0f);
  r.replace(nodes, {&fused::rotary_and_cache, rotation.name,
                    {queries.x, keys.x, value, rotation.inputs[2], rotation.inputs[3], cache.inputs[4],
                     cache.inputs[2], cache.inputs[3], both ? queries.gamma : none, both ? keys.gamma : none, epsilon,
                     r.graph.add_scalar(format == 3)},
                    {rotation.outputs[0]}});
}

}  // namespace

void fuse(Graph& graph) {
  Pattern* const patterns[] = {fuse_linear,           fuse_bias,     fuse_lora, fuse_swiglu,
                               fuse_rotary_and_cache, fuse_residual, fuse_sum, fuse_cast};
  for (Pattern* pattern : patterns) {
    Rewriter rewriter(graph);
    for (int index = 0; index < rewriter.num_nodes(); index++) pattern(rewriter, index);
    std::vector<Node> kept;
    for (Node& node : graph.nodes) {
      if (node.op) kept.push_back(std::move(node));
    }
    graph.nodes = std::move(kept);
  }
}

}  // namespace mindgen
