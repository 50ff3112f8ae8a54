// Attention's products for few rows, as in decoding: keys and values go from memory to registers and nowhere else.
#pragma once
#include "attention_softmax.h"
#include "shuffle.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kFewRows = 8;

// Blocks of a cache lie anywhere, which the hardware cannot foresee.
template <class T>
__attribute__((always_inline)) static inline void prefetch(const T* from, int64_t elements) {
#pragma GCC unroll 4
  for (int64_t i = 0; i < elements; i += 64 / (int64_t)sizeof(T)) __builtin_prefetch(from + i);
}

#if defined(__AVX512BF16__)
// As for any arithmetic, in FewRows. Two sums to a row and key, of even and of odd units: fewer shuffles, and enough sums
// to hide the latency.
template <int ROWS>
static void score_rows(PairKernel, const uint32_t* query, int64_t units, const bfloat16* key, const bfloat16* ahead,
                       const int64_t* offsets, int64_t count, int64_t head_size, float* scores) {
  floatv total[ROWS][2] = {};
  for (int64_t u = 0; u < units; u += kWidth) {
    const int64_t d = u * 2;
    uintv v[kWidth];
    load_keys<PairUnits>(key + d, offsets, count, head_size - d, v);
    transpose_unit_pairs(v);
    transpose_unit_pairs(v + 8);
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
      __builtin_prefetch(ahead + offsets[2 * i] + d);
      __builtin_prefetch(ahead + offsets[2 * i + 1] + d);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        int64_t unit_pair;
        memcpy(&unit_pair, query + r * units + u + 2 * i, sizeof(unit_pair));
        const auto q = bit_cast<__m512bh>(_mm512_set1_epi64(unit_pair));
        total[r][0] = _mm512_dpbf16_ps(total[r][0], q, bit_cast<__m512bh>(v[i]));
        total[r][1] = _mm512_dpbf16_ps(total[r][1], q, bit_cast<__m512bh>(v[8 + i]));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) store(scores + r * kWidth, fold<1>(total[r][0], total[r][1], std::plus<>(), Lanes()));
}
#endif

template <int ROWS, class Arithmetic, class T>
static void score_rows(Arithmetic, const uint32_t* query, int64_t units, const T* key, const T* ahead,
                       const int64_t* offsets, int64_t count, int64_t head_size, float* scores) {
  using Units = typename Arithmetic::Units;
  floatv total[ROWS] = {};
  for (int64_t u = 0; u < units; u += kWidth) {
    const int64_t d = u * Units::kElements;
    uintv v[kWidth];
    load_keys<Units>(key + d, offsets, count, head_size - d, v);
    transpose(v);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) {
      __builtin_prefetch(ahead + offsets[i] + d);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        total[r] = Arithmetic::multiply_add(query[r * units + u + i], bit_cast<floatv>(v[i]), total[r]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) store(scores + r * kWidth, total[r]);
}

template <class Arithmetic>
struct FewRows {
  using Units = typename Arithmetic::Units;
  using T = typename Units::T;
  static constexpr bool kPacks = false;
  static constexpr int kRows = 1;
  static constexpr int64_t kVectorElements = kWidth * Units::kElements;

  // Scores (rows, kWidth) of up to kWidth keys, at the offsets; query (rows, units), units a multiple of kWidth.
  // Fetches what is at the same offsets from ahead.
  static void score(int64_t rows, const uint32_t* query, int64_t units, const T* key, const T* ahead,
                    const int64_t* offsets, int64_t count, int64_t head_size, float* scores) {
    with_rows(rows, [&](auto row_count) {
      score_rows<decltype(row_count)::value>(Arithmetic(), query, units, key, ahead, offsets, count, head_size, scores);
    });
  }

  // sums (panels at sum_step, rows, kWidth) += weights (rows, weight_step) times the values of count keys.
  // Fetches what is at next_offsets from ahead.
  static void add_values(int64_t rows, const uint32_t* weights, int64_t weight_step, const T* value,
                         const int64_t* offsets, const T* ahead, const int64_t* next_offsets, int64_t count,
                         int64_t head_size, float* sums, int64_t sum_step) {
    with_rows(rows, [&](auto row_count) {
      for (int64_t d = 0; d < head_size; d += kVectorElements, sums += Units::kElements * sum_step) {
        add_slab<decltype(row_count)::value>(weights, weight_step, value + d, offsets, ahead + d, next_offsets, count,
                                             head_size - d, sums, sum_step);
      }
    });
  }

 private:
  template <class Body>
  static void with_rows(int64_t rows, const Body& body) {
    switch (rows) {
      case 1: return body(std::integral_constant<int, 1>());
      case 2: return body(std::integral_constant<int, 2>());
      case 3: return body(std::integral_constant<int, 3>());
      case 4: return body(std::integral_constant<int, 4>());
      case 5: return body(std::integral_constant<int, 5>());
      case 6: return body(std::integral_constant<int, 6>());
      case 7: return body(std::integral_constant<int, 7>());
      default: return body(std::integral_constant<int, 8>());
    }
  }

  template <int ROWS>
  static void add_slab(const uint32_t* weights, int64_t weight_step, const T* value, const int64_t* offsets,
                       const T* ahead, const int64_t* next_offsets, int64_t count, int64_t size, float* sums,
                       int64_t sum_step) {
    floatv total[ROWS][Units::kElements] = {};
    const auto add = [&](int64_t key, int64_t present, int64_t left) __attribute__((always_inline)) {
      uintv v[Units::kElements];
      Units::load_unit(value + offsets[key], present, left > 1 ? offsets[key + 1] - offsets[key] : 0, left, v);
#pragma GCC unroll 8
      for (int r = 0; r < ROWS; r++) {
        const uint32_t weight = weights[r * weight_step + key / Units::kElements];
#pragma GCC unroll 2
        for (int i = 0; i < Units::kElements; i++) {
          total[r][i] = Arithmetic::multiply_add(weight, bit_cast<floatv>(v[i]), total[r][i]);
        }
      }
    };
    const int num_keys = static_cast<int>(count);
    const int num_whole = size >= kVectorElements ? num_keys / Units::kElements * Units::kElements : 0;
    int key = 0;
    for (; key < num_whole; key += Units::kElements) {
#pragma GCC unroll 2
      for (int i = 0; i < Units::kElements; i++) prefetch(ahead + next_offsets[key + i], kVectorElements);
      add(key, kVectorElements, Units::kElements);
    }
    for (; key < num_keys; key += Units::kElements) add(key, smaller(size, kVectorElements), num_keys - key);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
      for (int i = 0; i < Units::kElements; i++) {
        if (i * kWidth >= size) continue;
        float* to = sums + i * sum_step + r * kWidth;
        store(to, load(to) + total[r][i]);
      }
    }
  }
};

}  // namespace
}  // namespace mindgen::MG_ISA
