// The product for few rows of inputs and weights stored (K, N): sums of rows of weights, lanes along N.
#pragma once
#include "epilogue.h"
#include "units.h"

namespace mindgen::MG_ISA {

// What one block of sums covers.
constexpr int64_t kMaxSumRows = 4;
constexpr int64_t kSumColumns = 4 * kWidth;

// ROWS rows from m on times count <= VECTORS * kWidth columns from n on. The weights of several k go to sums of their
// own where there are few sums to hide the latency.
template <int ROWS, int VECTORS, class X, class T, class Y>
static void sum_block(const Matrix<X>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t m, int64_t n,
                      int64_t count) {
  constexpr int kUnroll = ROWS * VECTORS >= 8 ? 1 : ROWS * VECTORS >= 4 ? 2 : 4;
  floatv total[kUnroll][ROWS][VECTORS] = {};
  constexpr int64_t kPrefetch = 512 / sizeof(T);  // within a row: the rows are streams of their own
  const auto add = [&](int64_t k, floatv(&sums)[ROWS][VECTORS]) __attribute__((always_inline)) {
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v++) {
      if (v * kWidth * sizeof(T) % 64 == 0) __builtin_prefetch(w.at(n, k) + v * kWidth + kPrefetch);
      const floatv weights = load_upto(w.at(n, k) + v * kWidth, v + 1 < VECTORS ? kWidth : count - v * kWidth);
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) sums[row][v] += to_float(*x.at(m + row, k)) * weights;
    }
  };
  int64_t k = 0;
  for (; k + kUnroll <= x.depth; k += kUnroll) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++) add(k + u, total[u]);
  }
  for (; k < x.depth; k++) add(k, total[0]);
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
      floatv sum = total[0][row][v];
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; u++) sum += total[u][row][v];
      epilogue.write(m + row, n + v * kWidth, count - v * kWidth, sum);
    }
  }
}

template <int ROWS, class X, class T, class Y>
static void sum_columns(const Matrix<X>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t m, int64_t n,
                        int64_t count) {
  switch ((count + kWidth - 1) / kWidth) {
    case 1: return sum_block<ROWS, 1>(x, w, epilogue, m, n, count);
    case 2: return sum_block<ROWS, 2>(x, w, epilogue, m, n, count);
    case 3: return sum_block<ROWS, 3>(x, w, epilogue, m, n, count);
    default: return sum_block<ROWS, 4>(x, w, epilogue, m, n, count);
  }
}

// Columns begin .. end of x w^T, w being transposed.
template <class X, class T, class Y>
static void row_product(const Matrix<X>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t begin,
                        int64_t end) {
  for (int64_t n = begin; n < end; n += kSumColumns) {
    const int64_t count = end - n < kSumColumns ? end - n : kSumColumns;
    for (int64_t m = 0; m < x.rows; m += kMaxSumRows) {
      switch (x.rows - m) {
        case 1: sum_columns<1>(x, w, epilogue, m, n, count); break;
        case 2: sum_columns<2>(x, w, epilogue, m, n, count); break;
        case 3: sum_columns<3>(x, w, epilogue, m, n, count); break;
        default: sum_columns<4>(x, w, epilogue, m, n, count);
      }
    }
  }
}

}  // namespace mindgen::MG_ISA
