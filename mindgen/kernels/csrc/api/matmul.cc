// The matrix products of the C interface: arguments are checked here.
#include <cstring>

#include "dispatch.h"

using namespace mindgen;

namespace {

int check_linear(const char* name, const void* x, int64_t x_step, const void* w, const void* y, int64_t M, int64_t N,
                 int64_t K, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (M < 0 || N < 0 || K < 0) {
    return fail("%s: negative size: M %lld, N %lld, K %lld", name, (long long)M, (long long)N, (long long)K);
  }
  if (x_step < K) return fail("%s: x_step is %lld, less than K %lld", name, (long long)x_step, (long long)K);
  if (M > 0 && N > 0 && (!y || (K > 0 && (!x || !w)))) return fail("%s: x, w or y is NULL", name);
  return MG_OK;
}

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

int mg_matmul(const void* x, const void* w, const void* bias, void* y, int64_t batch, int64_t M, int64_t N,
              int64_t K, bool transpose_x, bool transpose_w, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("matmul: dtype must be float32, bfloat16 or float16");
  if (batch < 0 || M < 0 || N < 0 || K < 0) {
    return fail("matmul: negative size: batch %lld, M %lld, N %lld, K %lld", (long long)batch, (long long)M,
                (long long)N, (long long)K);
  }
  if (batch == 0 || M == 0 || N == 0) return MG_OK;
  if (!y || (K > 0 && (!x || !w))) return fail("matmul: x, w or y is NULL");
  return kernels().matmul(x, w, bias, y, batch, M, N, K, transpose_x, transpose_w, dtype);
}

int mg_linear(const void* x, int64_t x_step, const void* w, const void* bias, const void* residual, void* y, int64_t M,
              int64_t N, int64_t K, mg_dtype dtype, mg_dtype y_dtype) {
  if (check_linear("linear", x, x_step, w, y, M, N, K, dtype) != MG_OK) return MG_ERROR;
  if (y_dtype != dtype && y_dtype != MG_FLOAT32) return fail("linear: y_dtype must be dtype or float32");
  if (M == 0 || N == 0) return MG_OK;
  return kernels().linear(x, x_step, w, bias, residual, y, M, N, K, dtype, y_dtype);
}

int mg_linear_swiglu(const void* x, int64_t x_step, const void* w, const void* bias, void* y, int64_t M, int64_t N,
                     int64_t K, mg_dtype dtype) {
  if (check_linear("linear_swiglu", x, x_step, w, y, M, N, K, dtype) != MG_OK) return MG_ERROR;
  if (M == 0 || N == 0) return MG_OK;
  return kernels().linear_swiglu(x, x_step, w, bias, y, M, N, K, dtype);
}

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

double mg_measure_read_bandwidth(const void* data, int64_t bytes) {
  return data ? kernels().measure_read_bandwidth(data, bytes) : 0;
}

double mg_measure_product_rate(mg_dtype dtype) {
  return is_compute_dtype(dtype) ? kernels().measure_product_rate(dtype) : 0;
}

}  // extern "C"
