#include "dispatch.h"
#include "simd.h"

namespace mindgen::MG_ISA {

namespace {

template <class T>
void multiply(const T* x, const T* w, const T* bias, T* y, int64_t M, int64_t N, int64_t K, bool transpose_x,
              bool transpose_w) {
  for (int64_t m = 0; m < M; m++) {
    for (int64_t n = 0; n < N; n++) {
      float total = 0;
      for (int64_t k = 0; k < K; k++) {
        total += to_float(transpose_x ? x[k * M + m] : x[m * K + k]) *
                 to_float(transpose_w ? w[n * K + k] : w[k * N + n]);
      }
      y[m * N + n] = from_float<T>(bias ? total + to_float(bias[n]) : total);
    }
  }
}

}  // namespace

int matmul(const void* x, const void* w, const void* bias, void* y, int64_t batch, int64_t M, int64_t N, int64_t K,
           bool transpose_x, bool transpose_w, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
#pragma omp parallel for num_threads(mg_get_num_threads())
    for (int64_t b = 0; b < batch; b++) {
      multiply((const T*)x + b * M * K, (const T*)w + b * N * K, (const T*)bias, (T*)y + b * M * N, M, N, K,
               transpose_x, transpose_w);
    }
    return (int)MG_OK;
  });
}

int grouped_matmul(const void* x, const void* w, const int64_t* group_ends, void* y, int64_t T, int64_t E, int64_t K,
                   int64_t N, bool transpose_w, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    int64_t start = 0;
    for (int64_t e = 0; e < E; e++) {
      multiply((const Element*)x + start * K, (const Element*)w + e * K * N, (const Element*)nullptr,
               (Element*)y + start * N, group_ends[e] - start, N, K, false, transpose_w);
      start = group_ends[e];
    }
    memset((Element*)y + start * N, 0, (T - start) * N * sizeof(Element));
    return (int)MG_OK;
  });
}

}  // namespace mindgen::MG_ISA
