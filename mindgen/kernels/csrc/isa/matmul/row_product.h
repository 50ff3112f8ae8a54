// The product with weights stored (K, N): sums of rows of weights, lanes along N. A long K is summed in pieces, which are
// then added up, so that few sums can hide the latency of each; the pieces are the same however many rows there are.
#pragma once
#include "block_kernels.h"
#include "epilogue.h"

namespace mindgen::MG_ISA {

// What one block of sums covers.
#if defined(__AVX512BF16__) || defined(__aarch64__)
constexpr int64_t kMaxSumRows = 4;
#else
constexpr int64_t kMaxSumRows = 3;
#endif
constexpr int64_t kSumColumns = 4 * kWidth;
constexpr int kSumPieces = 4;
constexpr int64_t kLeastPiecesDepth = 256;  // a shorter K is one piece

// The unit of a row of inputs that a unit of weights is multiplied by.
template <class Units, class T>
static inline uint32_t load_input(const T* from, int64_t depth) {
  if constexpr (Units::kElements == 1) {
    return bit_cast<uint32_t>(to_float(*from));
  } else {
    uint32_t unit = 0;
    memcpy(&unit, from, depth > 1 ? sizeof(unit) : sizeof(*from));
    return unit;
  }
}

// ROWS rows from m on times count <= VECTORS * kWidth columns from n on.
template <int ROWS, int VECTORS, class T, class Y>
static void sum_block(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t m, int64_t n,
                      int64_t count) {
  using Kernel = typename ArithmeticOf<T>::type;
  using Units = typename Kernel::Units;
  constexpr int kElements = Units::kElements;
  constexpr int kAtOnce = ROWS * VECTORS >= 8 ? 1 : ROWS * VECTORS >= 4 ? 2 : kSumPieces;  // pieces
  const T* inputs = x.at(m, 0);
  const T* columns = w.at(n, 0);
  const int64_t x_step = x.step, w_step = w.step;
  // Rows of many columns are streams of their own, narrow ones follow each other.
  const int64_t ahead = (w_step > kSumColumns ? 512 : 4096) / sizeof(T);
  const auto add = [&](int64_t k, int64_t depth, floatv(&sums)[ROWS][VECTORS]) __attribute__((always_inline)) {
    uintv weights[VECTORS + kElements - 1];
#pragma GCC unroll 4
    for (int v = 0; v < VECTORS; v += kElements) {
      const T* from = columns + k * w_step + v * kWidth;
#pragma GCC unroll 2
      for (int e = 0; e < kElements; e++) {
        if (v * kWidth * sizeof(T) % 64 == 0) __builtin_prefetch(from + e * w_step + ahead);
      }
      const int64_t present = v + kElements < VECTORS ? kElements * kWidth : count - v * kWidth;
      Units::load_unit(from, present, w_step, depth, weights + v);
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
      const uint32_t input = load_input<Units>(inputs + row * x_step + k, depth);
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        sums[row][v] = Kernel::multiply_add(input, bit_cast<floatv>(weights[v]), sums[row][v]);
      }
    }
  };
  const int64_t pieces = x.depth < kLeastPiecesDepth ? 1 : kSumPieces;
  const int64_t piece = x.depth / pieces / kElements * kElements;  // the last one also has what is left
  floatv sums[ROWS][VECTORS] = {};
  for (int64_t p = 0; p < pieces; p += kAtOnce) {
    floatv total[kAtOnce][ROWS][VECTORS] = {};
    const int64_t first = p * piece, at_once = pieces == 1 ? 1 : kAtOnce;
    int64_t k = 0;
    if (pieces > 1) {
      for (; k < piece; k += kElements) {
#pragma GCC unroll 4
        for (int u = 0; u < kAtOnce; u++) add(first + u * piece + k, kElements, total[u]);
      }
    }
    if (p + at_once == pieces) {
      const int64_t last = at_once - 1;
      for (k += first + last * piece; k < x.depth; k += kElements) add(k, x.depth - k, total[last]);
    }
#pragma GCC unroll 4
    for (int u = 0; u < kAtOnce; u++) {
#pragma GCC unroll 4
      for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sums[row][v] += total[u][row][v];
      }
    }
  }
#pragma GCC unroll 4
  for (int v = 0; v < VECTORS; v++) {
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) epilogue.write(m + row, n + v * kWidth, count - v * kWidth, sums[row][v]);
  }
}

template <int ROWS, class T, class Y>
static void sum_columns(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t m, int64_t n,
                        int64_t count) {
  switch ((count + kWidth - 1) / kWidth) {
    case 1: return sum_block<ROWS, 1>(x, w, epilogue, m, n, count);
    case 2: return sum_block<ROWS, 2>(x, w, epilogue, m, n, count);
    case 3: return sum_block<ROWS, 3>(x, w, epilogue, m, n, count);
    default: return sum_block<ROWS, 4>(x, w, epilogue, m, n, count);
  }
}

// Columns begin .. end of x w^T, w being transposed.
template <class T, class Y>
static void row_product(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int64_t begin,
                        int64_t end) {
  for (int64_t n = begin; n < end; n += kSumColumns) {
    const int64_t count = end - n < kSumColumns ? end - n : kSumColumns;
    for (int64_t m = 0; m < x.rows; m += kMaxSumRows) {
      switch (x.rows - m < kMaxSumRows ? x.rows - m : kMaxSumRows) {
        case 1: sum_columns<1>(x, w, epilogue, m, n, count); break;
        case 2: sum_columns<2>(x, w, epilogue, m, n, count); break;
        case 3: sum_columns<3>(x, w, epilogue, m, n, count); break;
        default: sum_columns<kMaxSumRows>(x, w, epilogue, m, n, count);
      }
    }
  }
}

}  // namespace mindgen::MG_ISA
