// The ways to a matrix product, shared by the plain and the grouped one.
#pragma once
#include "dispatch.h"
#include "dot_product.h"
#include "row_product.h"
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
#include "panel_product.h"
#endif

namespace mindgen::MG_ISA {

// Tiles multiply weights stored (N, K) by any number of rows: a sum that tiles take has another order than lanes give it.
template <class X, class W>
constexpr bool kHasTiles = false;
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
template <>
constexpr bool kHasTiles<bfloat16, bfloat16> = true;
#endif

// As many threads as a product is worth: starting one takes as long as some ten thousand multiplications.
static inline int useful_threads(int64_t multiplications) {
  const int64_t worth = 1 + multiplications / 32768;
  return (int)smaller(worth, usable_threads());
}

// x (M, K) stored row by row, if need be in a copy that is valid until the thread's next call.
template <class T>
static Matrix<T> by_rows(const Matrix<T>& x) {
  if (!x.transposed) return x;
  T* rows = (T*)scratch(kScratchLowRank, x.rows * x.depth * sizeof(T));
  for (int64_t k = 0; k < x.depth; k++) {
    for (int64_t m = 0; m < x.rows; m++) rows[m * x.depth + k] = *x.at(m, k);
  }
  return whole_matrix(rows, x.rows, x.depth, false);
}

// x (M, K) w (N, K)^T, w stored row by row. The order of each sum depends on K.
template <class X, class W, class Y>
static void multiply_rows(const Matrix<X>& x, const Matrix<W>& w, const Epilogue<X, Y>& epilogue, int threads) {
  using Dot = typename DotOf<X, W>::type;
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
  if constexpr (kHasTiles<X, W>) return PanelProduct<X, Y>(x, w, epilogue, threads).run();
#endif
  const Inputs<Dot> inputs = prepare_inputs<Dot>(x, threads);
  const int64_t N = epilogue.columns, columns = task_columns(N, threads);
  parallel_for(ceil_divide(N, columns), threads, [&](int64_t i) {
    dot_product<Dot>(x.rows, inputs, w, epilogue, i * columns, smaller((i + 1) * columns, N));
  });
}

// x (M, K) w (N, K)^T, w possibly stored transposed, which gives the sums another order.
template <class T, class Y>
static void multiply(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads) {
  if (!w.transposed) return multiply_rows(x, w, epilogue, threads);
  const int64_t N = epilogue.columns;
  parallel_for(ceil_divide(N, kSumColumns), threads, [&](int64_t i) {
    const int64_t n = i * kSumColumns;
    row_product(x, w, epilogue, n, smaller(n + kSumColumns, N));
  });
}

}  // namespace mindgen::MG_ISA
