// The matrix products of the C interface: arguments are checked here.
#include "dispatch.h"

using namespace mindgen;

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
  for (int64_t e = 0, start = 0; e < E; start = group_ends[e++]) {
    if (group_ends[e] < start || group_ends[e] > T) {
      return fail("grouped_matmul: group_ends[%lld] is %lld, not within %lld..%lld", (long long)e,
                  (long long)group_ends[e], (long long)start, (long long)T);
    }
  }
  return kernels().grouped_matmul(x, w, group_ends, y, T, E, K, N, transpose_w, dtype);
}

}  // extern "C"
