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
  return (int)smaller(worth, mg_get_num_threads());
}

template <class T, class Y>
static void panel_product(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads) {
  PanelProduct<typename BlockOf<T>::type, T, Y>(x, w, epilogue, threads).run();
}

}  // namespace mindgen::MG_ISA
