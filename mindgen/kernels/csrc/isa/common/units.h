// Matrices, and how they are packed for products that are taken unit by unit.
//
// A unit is what one 32-bit lane multiplies in one step: a float32, or two bfloat16 that follow each other along K.
// A panel holds kWidth rows of a matrix unit by unit: (units, kWidth).
#pragma once
#include "simd.h"

namespace mindgen::MG_ISA {

static inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

// A matrix (rows, depth) stored as it is, or as (depth, rows) when transposed, what is stored as a row being `step`
// elements from the next.
template <class T>
struct Matrix {
  const T* data;
  int64_t rows;
  int64_t depth;
  int64_t step;
  bool transposed;

  const T* at(int64_t row, int64_t k) const { return transposed ? data + k * step + row : data + row * step + k; }
};

// Without gaps.
template <class T>
static inline Matrix<T> whole_matrix(const T* data, int64_t rows, int64_t depth, bool transposed) {
  return {data, rows, depth, transposed ? rows : depth, transposed};
}

// One element to a unit, converted to float32.
template <class Element>
struct FloatUnits {
  using T = Element;
  static constexpr int kElements = 1;

  // kWidth units along K, zero from count elements on.
  static inline uintv load_along_depth(const T* from, int64_t count) {
    return bit_cast<uintv>(load_upto(from, count));
  }
  // One unit of kWidth rows of a transposed matrix, zero from count rows on.
  static inline uintv load_along_rows(const T* from, int64_t count, int64_t, int64_t) {
    return bit_cast<uintv>(load_upto(from, count));
  }
  // One unit of kElements * kWidth rows of a transposed matrix, zero from count rows on: a vector for each kWidth.
  static inline void load_unit(const T* from, int64_t count, int64_t, int64_t, uintv* units) {
    units[0] = bit_cast<uintv>(load_upto(from, count));
  }
  // kWidth units of kElements * kWidth floats
  static inline uintv from_floats(const floatv* floats) { return bit_cast<uintv>(floats[0]); }
};

#if defined(__AVX512BF16__) || defined(MG_TILE_EMULATION)
// Two bfloat16 to a unit.
struct PairUnits {
  using T = bfloat16;
  static constexpr int kElements = 2;

  static inline uintv load_along_depth(const T* from, int64_t count) {
    if (count >= 2 * kWidth) return load_bits<uintv>(from);
    T elements[2 * kWidth] = {};
    memcpy(elements, from, count * sizeof(T));
    return load_bits<uintv>(elements);
  }
  static inline uintv load_along_rows(const T* from, int64_t count, int64_t row_length, int64_t depth) {
    const uintv even = bit_cast<uintv>(load_upto(from, count)) >> 16;
    return depth > 1 ? even | bit_cast<uintv>(load_upto(from + row_length, count)) : even;
  }
#if defined(__AVX512BF16__)
  static inline __m512i load_elements(const T* from, int64_t count) {
    if (count >= 2 * kWidth) return load_bits<__m512i>(from);
    return _mm512_maskz_loadu_epi16((1u << count) - 1, from);
  }
  static inline void load_unit(const T* from, int64_t count, int64_t row_length, int64_t depth, uintv* units) {
    const __m512i even = load_elements(from, count);
    const __m512i odd = depth > 1 ? load_elements(from + row_length, count) : __m512i{};
    const intv lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const intv low = lane | (lane + 2 * kWidth) << 16, high = low + (kWidth | kWidth << 16);
    units[0] = bit_cast<uintv>(_mm512_permutex2var_epi16(even, bit_cast<__m512i>(low), odd));
    units[1] = bit_cast<uintv>(_mm512_permutex2var_epi16(even, bit_cast<__m512i>(high), odd));
  }
#else
  static inline void load_unit(const T* from, int64_t count, int64_t row_length, int64_t depth, uintv* units) {
    units[0] = load_along_rows(from, count, row_length, depth);
    units[1] = count > kWidth ? load_along_rows(from + kWidth, count - kWidth, row_length, depth) : uintv{};
  }
#endif
  static inline uintv from_floats(const floatv* floats) {
#if defined(__AVX512BF16__)
    return bit_cast<uintv>(_mm512_cvtne2ps_pbh(floats[1], floats[0]));
#else
    T elements[2 * kWidth];
    store(elements, floats[0]);
    store(elements + kWidth, floats[1]);
    return load_bits<uintv>(elements);
#endif
  }
};
#endif

#if defined(__AVX512BF16__)
// Swaps the off-diagonal squares of DISTANCE lanes in every square of twice as many.
template <int DISTANCE>
__attribute__((always_inline)) static inline void swap_squares(uintv* v) {
  const intv lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const intv upper = lane & DISTANCE;  // from 16 on, the index means a lane of the second operand
  const __m512i low = bit_cast<__m512i>(upper ? lane + (16 - DISTANCE) : lane);
  const __m512i high = bit_cast<__m512i>(upper ? lane + 16 : lane + DISTANCE);
#pragma GCC unroll 16
  for (int i = 0; i < 16; i++) {
    if (i & DISTANCE) continue;
    const __m512i a = bit_cast<__m512i>(v[i]), b = bit_cast<__m512i>(v[i + DISTANCE]);
    v[i] = bit_cast<uintv>(_mm512_permutex2var_epi32(a, low, b));
    v[i + DISTANCE] = bit_cast<uintv>(_mm512_permutex2var_epi32(a, high, b));
  }
}

__attribute__((always_inline)) static inline void transpose(uintv* v) {
  swap_squares<1>(v);
  swap_squares<2>(v);
  swap_squares<4>(v);
  swap_squares<8>(v);
}

// Eight rows' vectors of units become vectors of eight rows' pairs of units.
__attribute__((always_inline)) static inline void transpose_unit_pairs(uintv* v) {
  __m512i pairs[8];
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    const __m512i a = bit_cast<__m512i>(v[i]), b = bit_cast<__m512i>(v[i + 1]);
    pairs[i] = _mm512_unpacklo_epi64(a, b);
    pairs[i + 1] = _mm512_unpackhi_epi64(a, b);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const __m512i a = _mm512_shuffle_i64x2(pairs[i], pairs[i + 2], 0x44);
    const __m512i b = _mm512_shuffle_i64x2(pairs[i], pairs[i + 2], 0xee);
    const __m512i c = _mm512_shuffle_i64x2(pairs[i + 4], pairs[i + 6], 0x44);
    const __m512i d = _mm512_shuffle_i64x2(pairs[i + 4], pairs[i + 6], 0xee);
    v[i] = bit_cast<uintv>(_mm512_shuffle_i64x2(a, c, 0x88));
    v[i + 2] = bit_cast<uintv>(_mm512_shuffle_i64x2(a, c, 0xdd));
    v[i + 4] = bit_cast<uintv>(_mm512_shuffle_i64x2(b, d, 0x88));
    v[i + 6] = bit_cast<uintv>(_mm512_shuffle_i64x2(b, d, 0xdd));
  }
}
#else
static inline void transpose(uintv* v) {
  uint32_t from[kWidth][kWidth], to[kWidth][kWidth];
  memcpy(from, v, sizeof(from));
  for (int i = 0; i < kWidth; i++) {
    for (int j = 0; j < kWidth; j++) to[j][i] = from[i][j];
  }
  memcpy(v, to, sizeof(to));
}
#endif

static inline void store_units(uint32_t* to, uintv units) { memcpy(to, &units, sizeof(units)); }

// v[i]: kWidth units of row `row + i` from k on, zero outside the matrix.
template <class Units, class T>
static inline void load_rows(const Matrix<T>& m, int64_t row, int64_t k, uintv* v) {
  for (int i = 0; i < kWidth; i++) {
    const bool inside = row + i < m.rows;
    v[i] = inside ? Units::load_along_depth(m.at(row + i, k), m.depth - k) : uintv{};
  }
}

// v[i]: unit i from k on of kWidth rows, zero outside the matrix.
template <class Units, class T>
static inline void load_columns(const Matrix<T>& m, int64_t row, int64_t k, uintv* v) {
  for (int i = 0; i < kWidth; i++, k += Units::kElements) {
    const bool inside = k < m.depth && row < m.rows;
    v[i] = inside ? Units::load_along_rows(m.at(row, k), m.rows - row, m.step, m.depth - k) : uintv{};
  }
}

// kWidth rows from element k on -> a panel (units, kWidth); units is a multiple of kWidth.
template <class Units, class T>
static void pack_panel(const Matrix<T>& m, int64_t row, int64_t k, int64_t units, uint32_t* panel) {
  uintv v[kWidth];
  for (int64_t u = 0; u < units; u += kWidth) {
    if (m.transposed) {
      load_columns<Units>(m, row, k + u * Units::kElements, v);
    } else {
      load_rows<Units>(m, row, k + u * Units::kElements, v);
      transpose(v);
    }
    for (int i = 0; i < kWidth; i++) store_units(panel + (u + i) * kWidth, v[i]);
  }
}

// kWidth rows from element k on -> vectors of units: vector j of row i goes to i * row_step + j * vector_step.
template <class Units, class T>
static void pack_rows(const Matrix<T>& m, int64_t row, int64_t k, int64_t units, uint32_t* to, int64_t row_step,
                      int64_t vector_step) {
  uintv v[kWidth];
  for (int64_t u = 0; u < units; u += kWidth, to += vector_step) {
    if (m.transposed) {
      load_columns<Units>(m, row, k + u * Units::kElements, v);
      transpose(v);
    } else {
      load_rows<Units>(m, row, k + u * Units::kElements, v);
    }
    for (int i = 0; i < kWidth; i++) store_units(to + i * row_step, v[i]);
  }
}

}  // namespace mindgen::MG_ISA
