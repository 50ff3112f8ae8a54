// The ways to a matrix product, shared by the plain and the grouped one.
#pragma once
#include "block_kernels.h"
#include "dispatch.h"
#include "dot_product.h"
#include "panel_product.h"
#include "row_product.h"
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
#include "tile_block.h"
#endif

namespace mindgen::MG_ISA {

template <class T>
struct BlockOf {
  using type = VectorBlock<FloatKernel<T>>;
};
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
template <>
struct BlockOf<bfloat16> {
  using type = TileBlock;
};
#elif defined(__AVX512BF16__)
template <>
struct BlockOf<bfloat16> {
  using type = VectorBlock<PairKernel>;
};
#endif

// From so many rows on packing the inputs pays: sooner where weights are multiplied as they lie.
template <class T>
constexpr int64_t kManyRows = sizeof(T) == 2 && BlockOf<T>::type::kReadsWeightsDirectly ? 9 : 17;

// As many threads as a product is worth: starting one takes as long as some ten thousand multiplications.
static inline int useful_threads(int64_t multiplications) {
  const int64_t worth = 1 + multiplications / 32768;
  return (int)smaller(worth, usable_threads());
}

template <class T, class Y>
static void panel_product(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads) {
  PanelProduct<typename BlockOf<T>::type, T, Y>(x, w, epilogue, threads).run();
}

// x (M, K) w (N, K)^T, either possibly stored transposed.
template <class T, class Y>
static void multiply(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads) {
  if (x.transposed || x.rows >= kManyRows<T>) return panel_product(x, w, epilogue, threads);
  const int64_t N = epilogue.columns;
  if (w.transposed) {
    parallel_for(ceil_divide(N, kSumColumns), threads, [&](int64_t i) {
      const int64_t n = i * kSumColumns;
      row_product(x, w, epilogue, n, smaller(n + kSumColumns, N));
    });
  } else {
    const auto inputs = prepare_inputs(x);
    parallel_for(ceil_divide(N, kDotColumns), threads, [&](int64_t i) {
      const int64_t n = i * kDotColumns;
      dot_product(x.rows, inputs, w, epilogue, n, smaller(n + kDotColumns, N));
    });
  }
}

}  // namespace mindgen::MG_ISA
