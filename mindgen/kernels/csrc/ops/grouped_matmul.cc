// Products of rows that are grouped by adapter: arguments are checked here.
#include <cstring>

#include "dispatch.h"
#include "fused.h"

using namespace mindgen;

namespace {

int check_groups(const char* name, const int64_t* group_ends, int64_t E, int64_t T) {
  for (int64_t e = 0, start = 0; e < E; start = group_ends[e++]) {
    if (group_ends[e] < start || group_ends[e] > T) {
      return fail("%s: group_ends[%lld] is %lld, not within %lld..%lld", name, (long long)e, (long long)group_ends[e],
                  (long long)start, (long long)T);
    }
  }
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_grouped_matmul(const void* x, const void* w, const int64_t* group_ends, void* y, int64_t T, int64_t E,
                      int64_t K, int64_t N, bool transpose_w, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("grouped_matmul: dtype must be float32, bfloat16 or float16");
  if (T < 0 || E < 0 || K < 0 || N < 0) {
    return fail("grouped_matmul: negative size: T %lld, E %lld, K %lld, N %lld", (long long)T, (long long)E,
                (long long)K, (long long)N);
  }
  if (T == 0 || N == 0) return MG_OK;
  if (!y || (E > 0 && (!group_ends || (K > 0 && (!x || !w))))) {
    return fail("grouped_matmul: x, w, group_ends or y is NULL");
  }
  if (check_groups("grouped_matmul", group_ends, E, T) != MG_OK) return MG_ERROR;
  return kernels().grouped_matmul(x, w, group_ends, y, T, E, K, N, transpose_w, dtype);
}

int mg_add_lora(const void* x, int64_t x_step, const mg_lora_level* levels, int num_levels, const int64_t* sizes,
                int num_parts, void* y, int64_t T, int64_t K, mg_dtype dtype, mg_dtype y_dtype) {
  if (!is_compute_dtype(dtype)) return fail("add_lora: dtype must be float32, bfloat16 or float16");
  if (y_dtype != dtype && y_dtype != MG_FLOAT32) return fail("add_lora: y_dtype must be float32 or that of x");
  if (T < 0 || K < 0 || num_parts < 0) {
    return fail("add_lora: negative size: T %lld, K %lld, num_parts %d", (long long)T, (long long)K, num_parts);
  }
  if (num_levels < 0 || num_levels > MG_MAX_LORA_LEVELS) {
    return fail("add_lora: %d levels, not 0..%d", num_levels, MG_MAX_LORA_LEVELS);
  }
  if (x_step < K) return fail("add_lora: x_step is %lld, less than K %lld", (long long)x_step, (long long)K);
  if (T == 0 || K == 0 || num_parts == 0 || num_levels == 0) return MG_OK;
  if (!x || !levels || !sizes || !y) return fail("add_lora: x, levels, sizes or y is NULL");
  for (int p = 0; p < num_parts; p++) {
    if (sizes[p] < 0) return fail("add_lora: sizes[%d] is negative: %lld", p, (long long)sizes[p]);
  }
  for (int l = 0; l < num_levels; l++) {
    const mg_lora_level& level = levels[l];
    if (level.E < 0 || level.rank < 0 || level.E > levels[0].E) {
      return fail("add_lora: level %d has E %lld and rank %lld", l, (long long)level.E, (long long)level.rank);
    }
    if (level.E == 0) continue;
    if (!level.a || !level.b || !level.group_ends) return fail("add_lora: a, b or group_ends of level %d is NULL", l);
    for (int p = 0; p < num_parts; p++) {
      if (sizes[p] > 0 && !level.b[p]) return fail("add_lora: b[%d] of level %d is NULL", p, l);
    }
    if (memcmp(level.group_ends, levels[0].group_ends, level.E * sizeof(int64_t)) != 0) {
      return fail("add_lora: the group_ends of level %d are others than those of level 0", l);
    }
  }
  if (check_groups("add_lora", levels[0].group_ends, levels[0].E, T) != MG_OK) return MG_ERROR;
  return kernels().add_lora(x, x_step, levels, num_levels, sizes, num_parts, y, T, K, dtype, y_dtype);
}

}  // extern "C"

namespace {

void infer_grouped_matmul(const OpCall& call) {
  const Shape& weight = call.input(1).shape;
  require(weight.ndim == 3, "the weight must be (E, K, N)");
  call.output(0).set_shape({call.input(0).shape.first(), weight.dim(call.scalar<bool>(11) ? 1 : 2)});
}

// x (T, K), weight (E, K, N) or (E, N, K), group_list (E), cumulative
int run_grouped_matmul(const OpCall& call) {
  const Tensor &x = call.input(0), &weight = call.input(1), &y = call.output(0);
  require(call.scalar<int64_t>(8) == 3 && call.scalar<int64_t>(9) == 0, "split_item must be 3, group_type 0");
  require(x.shape.ndim == 2 && weight.shape.ndim == 3, "x must be (T, K), weight (E, K, N)");
  const bool transpose_b = call.scalar<bool>(11);
  const int64_t K = x.shape.dim(1), N = weight.shape.dim(transpose_b ? 1 : 2);
  require(!call.scalar<bool>(10) && weight.shape.dim(transpose_b ? 2 : 1) == K, "the inner sizes differ");
  require(call.input(7).elements() == weight.shape.dim(0), "group_list must have an entry for each weight");
  return mg_grouped_matmul(x.data, weight.data, call.int64s(7), y.data, x.shape.dim(0), weight.shape.dim(0), K, N,
                           transpose_b, common_float({x, weight, y}));
}

constexpr int kFirstLevel = 2;  // the inputs before it are x and y
constexpr int kFirstPart = 2;   // of a level, after group_ends and a

int level_inputs(const OpCall& call) {
  return fused::lora_level_inputs(call.num_inputs(), [&](int i) { return call.input(i).dtype; });
}

void infer_add_lora(const OpCall& call) { call.output(0).set_shape(call.input(1).shape); }

int run_add_lora(const OpCall& call) {
  const Tensor &x = call.input(0), &before = call.input(1), &y = call.output(0);
  if (before.data != y.data && mg_copy(before.data, y.data, y.bytes()) != MG_OK) return MG_ERROR;
  const int step = level_inputs(call), num_levels = (call.num_inputs() - kFirstLevel) / step;
  const int num_parts = step - kFirstPart;
  std::vector<mg_lora_level> levels(num_levels);
  std::vector<const void*> parts(num_levels * num_parts);
  std::vector<int64_t> sizes(num_parts);
  for (int l = 0; l < num_levels; l++) {
    const int first = kFirstLevel + l * step;
    const Tensor& a = call.input(first + 1);
    for (int p = 0; p < num_parts; p++) {
      const Tensor& b = call.input(first + kFirstPart + p);
      parts[l * num_parts + p] = b.data, sizes[p] = b.shape.last();
    }
    levels[l] = {a.data, parts.data() + l * num_parts, call.int64s(first), a.shape.first(), a.shape.last() / num_parts};
  }
  return mg_add_lora(x.data, x.step, levels.data(), num_levels, sizes.data(), num_parts, y.data, y.shape.first(),
                     x.shape.last(), x.dtype, y.dtype);
}

// Only the weights of groups with rows are read.
Cost add_lora_cost(const OpCall& call) {
  const Tensor &x = call.input(0), &y = call.input(1);
  const int step = level_inputs(call);
  Cost cost{x.bytes() + 2 * y.bytes(), 0};
  for (int level = kFirstLevel; level < call.num_inputs(); level += step) {
    const int64_t* ends = call.int64s(level);
    int64_t weights = 0, start = 0, groups = 0;
    for (int i = 1; i < step; i++) weights += call.input(level + i).shape.elements(1);
    for (int64_t e = 0; e < call.input(level).elements(); e++) {
      groups += ends[e] > start;
      start = ends[e];
    }
    cost.bytes += groups * weights * item_size(x.dtype);
    cost.operations += 2 * start * weights;
  }
  return cost;
}

}  // namespace

MINDGEN_OP(GroupedMatmul,
           .signature = "x, weight, bias: none, scale: none, offset: none, antiquant_scale: none, "
                        "antiquant_offset: none, group_list, split_item: int, group_type: int, transpose_a: bool, "
                        "transpose_b: bool -> y",
           .infer = infer_grouped_matmul, .run = run_grouped_matmul, .cost = matmul_cost)

namespace mindgen::fused {

const Op add_lora = {.name = "AddLora", .signature = "x, y, levels... -> y", .infer = infer_add_lora,
                     .run = run_add_lora, .strided_inputs = 1, .in_place = {0, 1}, .cost = add_lora_cost};

}  // namespace mindgen::fused
