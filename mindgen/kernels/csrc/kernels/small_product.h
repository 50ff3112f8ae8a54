// Products of small float32 matrices that stay in the cache.
#pragma once
#include "simd.h"

namespace mindgen::MG_ISA {

// c (ROWS, VECTORS * kWidth) += a (ROWS, depth) b (depth, VECTORS * kWidth)
template <int ROWS, int VECTORS>
static void add_block_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                              int64_t c_stride, int64_t depth) {
  floatv sums[ROWS][VECTORS];
#pragma GCC unroll 6
  for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 2
    for (int i = 0; i < VECTORS; i++) sums[row][i] = load(c + row * c_stride + i * kWidth);
  }
  for (int64_t k = 0; k < depth; k++) {
    floatv right[VECTORS];
#pragma GCC unroll 2
    for (int i = 0; i < VECTORS; i++) right[i] = load(b + k * b_stride + i * kWidth);
#pragma GCC unroll 6
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 2
      for (int i = 0; i < VECTORS; i++) sums[row][i] += a[row * a_stride + k] * right[i];
    }
  }
#pragma GCC unroll 6
  for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 2
    for (int i = 0; i < VECTORS; i++) store(c + row * c_stride + i * kWidth, sums[row][i]);
  }
}

// Six rows at a time: twelve sums and their operands fill the sixteen vector registers of AVX2.
template <int VECTORS>
static void add_column_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c,
                               int64_t c_stride, int64_t rows, int64_t depth) {
  while (rows > 0) {
    // Seven rows, a usual group of query heads, are better cut 4 + 3 than 6 + 1.
    const int64_t block = rows >= 12 || rows <= 6 ? (rows < 6 ? rows : 6) : (rows + 1) / 2;
    switch (block) {
      case 6: add_block_product<6, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth); break;
      case 5: add_block_product<5, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth); break;
      case 4: add_block_product<4, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth); break;
      case 3: add_block_product<3, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth); break;
      case 2: add_block_product<2, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth); break;
      default: add_block_product<1, VECTORS>(a, a_stride, b, b_stride, c, c_stride, depth);
    }
    a += block * a_stride;
    c += block * c_stride;
    rows -= block;
  }
}

// c (rows, columns) += a (rows, depth) b (depth, columns); columns is a multiple of kWidth.
static void add_product(const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride,
                        int64_t rows, int64_t depth, int64_t columns) {
  int64_t column = 0;
  for (; column + 2 * kWidth <= columns; column += 2 * kWidth) {
    add_column_product<2>(a, a_stride, b + column, b_stride, c + column, c_stride, rows, depth);
  }
  if (column < columns) add_column_product<1>(a, a_stride, b + column, b_stride, c + column, c_stride, rows, depth);
}

}  // namespace mindgen::MG_ISA
