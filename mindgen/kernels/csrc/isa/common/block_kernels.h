// The innermost products of attention: a few rows times a few panels, the sums in registers.
#pragma once
#include "shuffle.h"
#include "units.h"

namespace mindgen::MG_ISA {

template <class Element>
struct FloatKernel {
  using Units = FloatUnits<Element>;
  static inline floatv multiply_add(uint32_t weight, floatv inputs, floatv sums) {
    return sums + bit_cast<float>(weight) * inputs;
  }
};

#if defined(__AVX512BF16__)
struct PairKernel {
  using Units = PairUnits;
  static inline floatv multiply_add_pairs(uint64_t weights, floatv inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, bit_cast<__m512bh>(_mm512_set1_epi64(weights)), bit_cast<__m512bh>(inputs));
  }
  static inline floatv multiply_add(uint32_t weights, floatv inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, bit_cast<__m512bh>(_mm512_set1_epi32(weights)), bit_cast<__m512bh>(inputs));
  }
};
#endif

template <class T>
struct ArithmeticOf {
  using type = FloatKernel<T>;
};
#if defined(__AVX512BF16__)
template <>
struct ArithmeticOf<bfloat16> {
  using type = PairKernel;
};
#endif

// sums (panels, sum_step / kWidth, kWidth) (+)= weights (rows, units) times panels (panels, units, kWidth), where rows
// is a multiple of the block kernel's kRows, and there are up to kPanels panels.
struct Operands {
  const uint32_t* weights;
  int64_t weight_step;
  int64_t rows;
  const uint32_t* panels;
  int64_t panel_step;
  int64_t units;
  float* sums;
  int64_t sum_step;
  bool accumulate;
};

// Multiplies in vector registers.
template <class Arithmetic>
class VectorBlock {
 public:
  using Units = typename Arithmetic::Units;
  static constexpr bool kPacks = true;
#if defined(__AVX512BF16__) || defined(__aarch64__)
  static constexpr int kRows = 8;  // rows * panels sums and what they need fill 32 registers
#else
  static constexpr int kRows = 4;
#endif

  // Any number of panels.
  static void multiply(Operands o, int64_t panels) {
    for (int64_t groups = ceil_divide(panels, kPanels); groups > 0; groups--) {
      const int64_t count = ceil_divide(panels, groups);  // 2 + 2 rather than 3 + 1
      switch (count) {
        case 3: multiply_panels<3>(o); break;
        case 2: multiply_panels<2>(o); break;
        default: multiply_panels<1>(o);
      }
      o.panels += count * o.panel_step;
      o.sums += count * o.sum_step;
      panels -= count;
    }
  }

  // v: vectors of units of kWidth keys -> the vectors of a panel as `score` takes it
  static inline void pack_keys(uintv* v) { transpose(v); }
  // As multiply, of panels packed by pack_keys.
  static void score(const Operands& o, int64_t panels) { multiply(o, panels); }

 private:
  static constexpr int kPanels = 3;

  template <int PANELS>
  static void multiply_panels(const Operands& o) {
    constexpr int kManyRows = PANELS == 1 ? 2 * kRows : kRows;  // sums enough to hide the latency
    int64_t row = 0;
    for (; row + kManyRows <= o.rows; row += kManyRows) multiply_rows<PANELS, kManyRows>(o, row);
    if (row < o.rows) multiply_rows<PANELS, kRows>(o, row);
  }

  template <int PANELS, int ROWS>
  static void multiply_rows(const Operands& o, int64_t row) {
    const uint32_t* weights = o.weights + row * o.weight_step;
    float* sums = o.sums + row * kWidth;
    floatv total[ROWS][PANELS] = {};
#pragma GCC unroll 2
    for (int64_t u = 0; u < o.units; u++) {
      floatv inputs[PANELS];
#pragma GCC unroll 3
      for (int p = 0; p < PANELS; p++) inputs[p] = load_bits<floatv>(o.panels + p * o.panel_step + u * kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < ROWS; r++) {
        const uint32_t weight = weights[r * o.weight_step + u];
#pragma GCC unroll 3
        for (int p = 0; p < PANELS; p++) total[r][p] = Arithmetic::multiply_add(weight, inputs[p], total[r][p]);
      }
    }
    const bool accumulate = o.accumulate;
#pragma GCC unroll 16
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 3
      for (int p = 0; p < PANELS; p++) {
        float* to = sums + p * o.sum_step + r * kWidth;
        store(to, accumulate ? total[r][p] + load(to) : total[r][p]);
      }
    }
  }
};

#if defined(__AVX512BF16__)
// A score is the sum over the even units and that over the odd ones, as few rows take it with fewer shuffles.
template <>
inline void VectorBlock<PairKernel>::pack_keys(uintv* v) {
  transpose_unit_pairs(v);
  transpose_unit_pairs(v + kWidth / 2);
  uintv pairs[kWidth];
  for (int i = 0; i < kWidth; i++) pairs[i] = v[i / 2 + i % 2 * (kWidth / 2)];
  memcpy(v, pairs, sizeof(pairs));
}

// A panel is (pairs of units, halves, kWidth / 2 keys, 2 units); the number of units is even.
template <>
inline void VectorBlock<PairKernel>::score(const Operands& o, int64_t panels) {
  for (int64_t p = 0; p < panels; p++) {
    const uint32_t* panel = o.panels + p * o.panel_step;
    for (int64_t row = 0; row < o.rows; row += kRows) {
      const uint32_t* weights = o.weights + row * o.weight_step;
      floatv total[kRows][2] = {};
      for (int64_t u = 0; u < o.units; u += 2) {
        const floatv low = load_bits<floatv>(panel + u * kWidth), high = load_bits<floatv>(panel + (u + 1) * kWidth);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; r++) {
          const uint64_t pair = load_bits<uint64_t>(weights + r * o.weight_step + u);
          total[r][0] = PairKernel::multiply_add_pairs(pair, low, total[r][0]);
          total[r][1] = PairKernel::multiply_add_pairs(pair, high, total[r][1]);
        }
      }
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) {
        float* to = o.sums + p * o.sum_step + (row + r) * kWidth;
        store(to, fold<1>(total[r][0], total[r][1], std::plus<>(), Lanes()));
      }
    }
  }
}
#endif

}  // namespace mindgen::MG_ISA
