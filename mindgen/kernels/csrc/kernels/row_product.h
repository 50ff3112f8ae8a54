// The product for few rows of inputs and weights stored (K, N): sums of rows of weights, lanes along N.
#pragma once
#include "simd.h"

namespace mindgen::MG_ISA {

// What one block of sums covers.
constexpr int64_t kMaxSumRows = 4;
constexpr int64_t kSumColumns = 4 * kWidth;

// y (ROWS, count <= VECTORS * kWidth) = x (ROWS, K) w (K, count) + bias (count). The weights of several k go to sums of
// their own where there are few sums to hide the latency.
template <int ROWS, int VECTORS, class T>
static void sum_block(const T* x, const T* w, const T* bias, T* y, int64_t K, int64_t N, int64_t count) {
  constexpr int kUnroll = ROWS * VECTORS >= 8 ? 1 : ROWS * VECTORS >= 4 ? 2 : 4;
  floatv total[kUnroll][ROWS][VECTORS] = {};
  const auto add = [&](int64_t k, floatv(&sums)[ROWS][VECTORS]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      const floatv weights = load_upto(w + k * N + v * kWidth, v + 1 < VECTORS ? kWidth : count - v * kWidth);
#pragma GCC unroll 4
      for (int m = 0; m < ROWS; m++) sums[m][v] += to_float(x[m * K + k]) * weights;
    }
  };
  int64_t k = 0;
  for (; k + kUnroll <= K; k += kUnroll) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++) add(k + u, total[u]);
  }
  for (; k < K; k++) add(k, total[0]);
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
    const int64_t present = count - v * kWidth;
    const floatv offset = bias ? load_upto(bias + v * kWidth, present) : floatv{};
#pragma GCC unroll 4
    for (int m = 0; m < ROWS; m++) {
      floatv sum = total[0][m][v];
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; u++) sum += total[u][m][v];
      store_upto(y + m * N + v * kWidth, sum + offset, present);
    }
  }
}

template <int ROWS, class T>
static void sum_columns(const T* x, const T* w, const T* bias, T* y, int64_t K, int64_t N, int64_t count) {
  switch ((count + kWidth - 1) / kWidth) {
    case 1: return sum_block<ROWS, 1>(x, w, bias, y, K, N, count);
    case 2: return sum_block<ROWS, 2>(x, w, bias, y, K, N, count);
    case 3: return sum_block<ROWS, 3>(x, w, bias, y, K, N, count);
    default: return sum_block<ROWS, 4>(x, w, bias, y, K, N, count);
  }
}

// Columns begin .. end of y (M, N) = x (M, K) w (K, N) + bias (N).
template <class T>
static void row_product(const T* x, const T* w, const T* bias, T* y, int64_t M, int64_t K, int64_t N, int64_t begin,
                        int64_t end) {
  for (int64_t n = begin; n < end; n += kSumColumns) {
    const int64_t count = end - n < kSumColumns ? end - n : kSumColumns;
    const T* offset = bias ? bias + n : nullptr;
    for (int64_t m = 0; m < M; m += kMaxSumRows) {
      const T* from = x + m * K;
      T* to = y + m * N + n;
      switch (M - m) {
        case 1: sum_columns<1>(from, w + n, offset, to, K, N, count); break;
        case 2: sum_columns<2>(from, w + n, offset, to, K, N, count); break;
        case 3: sum_columns<3>(from, w + n, offset, to, K, N, count); break;
        default: sum_columns<4>(from, w + n, offset, to, K, N, count);
      }
    }
  }
}

}  // namespace mindgen::MG_ISA
