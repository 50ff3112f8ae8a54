// The innermost products: a few rows of weights times a few panels of inputs, the sums in registers.
#pragma once
#include "shuffle.h"
#include "units.h"

namespace mindgen::MG_ISA {

template <class Element>
struct FloatKernel {
  using Units = FloatUnits<Element>;
  static constexpr bool kReadsWeightsDirectly = sizeof(Element) == 4;
  static constexpr bool kHalvesPanels = false;
  static inline floatv multiply_add(uint32_t weight, floatv inputs, floatv sums) {
    return sums + bit_cast<float>(weight) * inputs;
  }
};

#if defined(__AVX512BF16__)
struct PairKernel {
  using Units = PairUnits;
  static constexpr bool kReadsWeightsDirectly = true;
  static constexpr bool kHalvesPanels = true;
  // kWidth rows from element k on -> a panel as (pairs of units, halves, kWidth / 2 rows, 2 units).
  template <class T>
  static void pack_halves(const Matrix<T>& m, int64_t row, int64_t k, int64_t units, uint32_t* panel) {
    uintv v[kWidth];
    for (int64_t u = 0; u < units; u += kWidth) {
      load_rows<Units>(m, row, k + u * Units::kElements, v);
      transpose_unit_pairs(v);
      transpose_unit_pairs(v + kWidth / 2);
      for (int i = 0; i < kWidth; i++) store_units(panel + (u + i) * kWidth, v[i / 2 + i % 2 * (kWidth / 2)]);
    }
  }
  static inline floatv multiply_add_pairs(uint64_t weights, floatv inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, bit_cast<__m512bh>(_mm512_set1_epi64(weights)), bit_cast<__m512bh>(inputs));
  }
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
  const uint32_t* next_weights;  // to prefetch: what is read after the last of these rows; NULL if these are not new
};

// Packs weights and multiplies them in vector registers.
template <class Arithmetic>
class VectorBlock {
 public:
  using Units = typename Arithmetic::Units;
  static constexpr bool kPacks = true;
  static constexpr bool kReadsWeightsDirectly = Arithmetic::kReadsWeightsDirectly;
  static constexpr bool kHalvesPanels = Arithmetic::kHalvesPanels;
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

  template <class T>
  static void pack_halves(const Matrix<T>& m, int64_t row, int64_t k, int64_t units, uint32_t* panel) {
    Arithmetic::pack_halves(m, row, k, units, panel);
  }
  // One panel, packed as halves, and an even number of units: a weight read serves two vectors, as it does with two
  // panels.
  static void multiply_halves(const Operands& o) {
    for (int64_t row = 0; row < o.rows; row += kRows) multiply_rows_by_halves(o, row);
  }

 private:
  static void multiply_rows_by_halves(const Operands& o, int64_t row) {
    constexpr int64_t kLineUnits = 64 / sizeof(uint32_t);
    const uint32_t* weights = o.weights + row * o.weight_step;
    const uint32_t* next = row + kRows < o.rows ? weights + kRows * o.weight_step : o.next_weights;
    floatv total[kRows][2] = {};
    for (int64_t u = 0; u < o.units; u += 2) {
      if (o.next_weights && u % kLineUnits == 0) {
#pragma GCC unroll 16
        for (int r = 0; r < kRows; r++) __builtin_prefetch(next + r * o.weight_step + u);
      }
      const floatv low = load_bits<floatv>(o.panels + u * kWidth);
      const floatv high = load_bits<floatv>(o.panels + (u + 1) * kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) {
        const uint64_t pair = load_bits<uint64_t>(weights + r * o.weight_step + u);
        total[r][0] = Arithmetic::multiply_add_pairs(pair, low, total[r][0]);
        total[r][1] = Arithmetic::multiply_add_pairs(pair, high, total[r][1]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; r++) {
      float* to = o.sums + (row + r) * kWidth;
      const floatv sums = fold<1>(total[r][0], total[r][1], std::plus<>(), Lanes());
      store(to, o.accumulate ? sums + load(to) : sums);
    }
  }

  template <int PANELS>
  static void multiply_panels(const Operands& o) {
    constexpr int kManyRows = PANELS == 1 ? 2 * kRows : kRows;  // sums enough to hide the latency
    int64_t row = 0;
    for (; row + kManyRows <= o.rows; row += kManyRows) multiply_rows<PANELS, kManyRows>(o, row);
    if (row < o.rows) multiply_rows<PANELS, kRows>(o, row);
  }

  template <int PANELS, int ROWS>
  static void multiply_rows(const Operands& o, int64_t row) {
    constexpr int64_t kLineUnits = 64 / sizeof(uint32_t);
    const uint32_t* weights = o.weights + row * o.weight_step;
    const uint32_t* next = row + ROWS < o.rows ? weights + ROWS * o.weight_step : o.next_weights;
    float* sums = o.sums + row * kWidth;
    floatv total[ROWS][PANELS] = {};
    for (int64_t line = 0; line < o.units; line += kLineUnits) {
      if (o.next_weights) {
#pragma GCC unroll 16
        for (int r = 0; r < ROWS; r++) __builtin_prefetch(next + r * o.weight_step + line);
      }
      const int64_t end = line + kLineUnits < o.units ? line + kLineUnits : o.units;
#pragma GCC unroll 2
      for (int64_t u = line; u < end; u++) {
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

}  // namespace mindgen::MG_ISA
