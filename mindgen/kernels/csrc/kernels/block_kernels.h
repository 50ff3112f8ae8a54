// The innermost products: a few rows of weights times a few panels of inputs, the sums in registers.
#pragma once
#include "units.h"

namespace mindgen::MG_ISA {

template <class Element>
struct FloatKernel {
  using Units = FloatUnits<Element>;
  static constexpr bool kReadsWeightsDirectly = sizeof(Element) == 4;
  static inline floatv multiply_add(uint32_t weight, floatv inputs, floatv sums) {
    return sums + bit_cast<float>(weight) * inputs;
  }
};

#if defined(__AVX512BF16__)
struct PairKernel {
  using Units = PairUnits;
  static constexpr bool kReadsWeightsDirectly = true;
  static inline floatv multiply_add(uint32_t weights, floatv inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, bit_cast<__m512bh>(_mm512_set1_epi32(weights)), bit_cast<__m512bh>(inputs));
  }
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

// Packs weights and multiplies them in vector registers.
template <class Arithmetic>
class VectorBlock {
 public:
  using Units = typename Arithmetic::Units;
  static constexpr bool kPacks = true;
  static constexpr bool kReadsWeightsDirectly = Arithmetic::kReadsWeightsDirectly;
#if defined(__AVX512BF16__) || defined(__aarch64__)
  static constexpr int kRows = 8;  // rows * panels sums and what they need fill 32 registers
#else
  static constexpr int kRows = 4;
#endif
  static constexpr int kPanels = 3;
  static constexpr int kBlockRows = 128;
  // Deep slices, for L2 delivers the panels fast enough, and sums are written to memory once a slice.
  static constexpr int64_t kSliceUnits = 512;

  struct Session {};  // nothing to set up for a thread

  // rows rows -> (rows, units)
  template <class T>
  static void pack_weights(const Matrix<T>& w, int64_t row, int64_t rows, int64_t k, int64_t units, uint32_t* to) {
    for (int64_t r = 0; r < rows; r += kWidth) {
      pack_rows<Units>(w, row + r, k, units, to + r * units, units, kWidth);
    }
  }
  // Where the vector of units from unit on of a row is among those of the packed rows.
  static int64_t packed_at(int64_t row, int64_t unit, int64_t units) { return row * units + unit; }

  static void multiply(int64_t panels, const Operands& o) {
    switch (panels) {
      case 3: return multiply_panels<3>(o);
      case 2: return multiply_panels<2>(o);
      default: return multiply_panels<1>(o);
    }
  }

 private:
  template <int PANELS>
  static void multiply_panels(const Operands& o) {
    for (int64_t row = 0; row < o.rows; row += kRows) {
      multiply_rows<PANELS>(o, o.weights + row * o.weight_step, o.sums + row * kWidth);
    }
  }

  template <int PANELS>
  static void multiply_rows(const Operands& o, const uint32_t* weights, float* sums) {
    floatv total[kRows][PANELS] = {};
#pragma GCC unroll 2
    for (int64_t u = 0; u < o.units; u++) {
      floatv inputs[PANELS];
#pragma GCC unroll 3
      for (int p = 0; p < PANELS; p++) inputs[p] = load_bits<floatv>(o.panels + p * o.panel_step + u * kWidth);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const uint32_t weight = weights[r * o.weight_step + u];
#pragma GCC unroll 3
        for (int p = 0; p < PANELS; p++) total[r][p] = Arithmetic::multiply_add(weight, inputs[p], total[r][p]);
      }
    }
    const bool accumulate = o.accumulate;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 3
      for (int p = 0; p < PANELS; p++) {
        float* to = sums + p * o.sum_step + r * kWidth;
        store(to, accumulate ? total[r][p] + load(to) : total[r][p]);
      }
    }
  }
};

}  // namespace mindgen::MG_ISA
