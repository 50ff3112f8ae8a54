// The product for many rows: Y^T = W X^T, blocked for the caches. X is packed into panels once, all K of it, so that
// W can be read where it lies.
#pragma once
#include "epilogue.h"
#include "parallel.h"
#include "scratch.h"
#include "units.h"

namespace mindgen::MG_ISA {

static inline int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t round_up(int64_t a, int64_t b) { return ceil_divide(a, b) * b; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

template <class Block, class T, class Y>
class PanelProduct {
  using Units = typename Block::Units;
  static constexpr int64_t kChunkPanels = 512 / kWidth;  // the sums of so many with a block of weights fit in L2
  static constexpr int64_t kThreadBlocks = 4;            // or a multiple, so that all threads end together
  static constexpr int64_t kLoneSliceUnits = 1024;       // fit in L2, which will do when there are no other panels

  const Matrix<T> x_, w_;
  const Epilogue<T, Y> epilogue_;
  const int threads_;
  const int64_t all_panels_, units_;
  const bool halves_;             // the only panel is packed as two halves
  int64_t slice_units_;           // K is cut into slices of so many units
  int64_t first_panel_, panels_;  // the chunk of panels at hand
  uint32_t* packed_;              // (slices, panels, units of a slice, kWidth)

 public:
  PanelProduct(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads)
      : x_(x), w_(w), epilogue_(epilogue), threads_(threads), all_panels_(ceil_divide(x.rows, kWidth)),
        units_(ceil_divide(x.depth, Units::kElements)),
        halves_(Block::kHalvesPanels && all_panels_ == 1 && units_ % 2 == 0 && !x.transposed) {
    const int64_t limit = all_panels_ <= Block::kPanels ? kLoneSliceUnits : Block::kSliceUnits;
    const int64_t slices = larger(1, ceil_divide(units_, limit));
    slice_units_ = larger(kWidth, round_up(ceil_divide(units_, slices), kWidth));
  }

  void run() {
    const int64_t chunk = ceil_divide(all_panels_, ceil_divide(all_panels_, kChunkPanels));
    const int64_t padded_units = round_up(units_, slice_units_);
    packed_ = (uint32_t*)scratch(kScratchInputs, chunk * padded_units * kWidth * sizeof(uint32_t));
    for (first_panel_ = 0; first_panel_ < all_panels_; first_panel_ += chunk) {
      panels_ = smaller(chunk, all_panels_ - first_panel_);
      multiply_chunk();
    }
  }

 private:
  void multiply_chunk() {
    const int64_t columns = epilogue_.columns;
    const int64_t fewest_blocks = ceil_divide(columns * epilogue_.parts(), Block::kBlockRows);
    const int64_t row_step =
        round_up(ceil_divide(columns, round_up(fewest_blocks, kThreadBlocks * threads_)), Block::kRows);
    const int64_t row_blocks = ceil_divide(columns, row_step);
    // Few rows of weights, as in a low-rank adapter, leave the panels to share out.
    const int64_t panel_groups = ceil_divide(panels_, Block::kPanels);
    const int64_t panel_blocks = smaller(panel_groups, ceil_divide(4 * threads_, row_blocks));
    const int64_t panel_step = ceil_divide(panel_groups, panel_blocks) * Block::kPanels;
    const int64_t parts = ceil_divide(panels_, panel_step);
    parallel_for(panels_, threads_, [&](int64_t p) { pack(p); });
    parallel_for(row_blocks * parts, threads_, [&](int64_t i) {
      const int64_t row = i / parts * row_step, p = i % parts * panel_step;
      multiply_block(row, smaller(row_step, columns - row), p, smaller(panel_step, panels_ - p));
    });
  }

  uint32_t* packed(int64_t first_unit, int64_t p) const {
    return packed_ + (first_unit * panels_ + p * slice_units_) * kWidth;
  }

  void pack(int64_t p) const {
    for (int64_t u = 0; u < units_; u += slice_units_) {
      const int64_t units = round_up(smaller(slice_units_, units_ - u), kWidth);
      const int64_t row = (first_panel_ + p) * kWidth, k = u * Units::kElements;
      if constexpr (Block::kHalvesPanels) {
        if (halves_) {
          Block::pack_halves(x_, row, k, units, packed(u, p));
          continue;
        }
      }
      pack_panel<Units>(x_, row, k, units, packed(u, p));
    }
  }

  void multiply_block(int64_t row, int64_t rows, int64_t first_panel, int64_t panels) const {
    const int64_t padded_rows = round_up(rows, larger(Block::kRows, kWidth));
    const int64_t sum_step = padded_rows * kWidth;
    const int64_t part_step = panels * sum_step;
    // (parts, panels, rows, kWidth)
    float* sums = (float*)scratch(kScratchSums, epilogue_.parts() * part_step * sizeof(float));
    const typename Block::Session session{};
    (void)session;
    for (int64_t u = 0; u == 0 || u < units_; u += slice_units_) {
      const bool last = u + slice_units_ >= units_;
      for (int part = 0; part < epilogue_.parts(); part++) {
        const int64_t part_row = part * epilogue_.columns + row;
        const T* next = part + 1 < epilogue_.parts() ? w_.at(part_row + epilogue_.columns, u * Units::kElements)
                        : last                       ? w_.at(row + threads_ * rows, 0)  // most likely
                                                     : w_.at(row, (u + slice_units_) * Units::kElements);
        multiply_slice(part_row, rows, first_panel, panels, u, next, sums + part * part_step, sum_step);
      }
    }
    for (int64_t p = 0; p < panels; p++) {
      write_panel(sums + p * sum_step, part_step, row, rows, (first_panel_ + first_panel + p) * kWidth);
    }
  }

  // The share of the slice from unit u on; `next` are the weights to follow.
  void multiply_slice(int64_t row, int64_t rows, int64_t first_panel, int64_t panels, int64_t u, const T* next,
                      float* sums, int64_t sum_step) const {
    int64_t units = smaller(slice_units_, units_ - u);
    const int64_t k = u * Units::kElements;
    const bool whole_units = w_.depth % Units::kElements == 0 && w_.step % Units::kElements == 0;
    const uint32_t* weights = (const uint32_t*)w_.at(row, k);
    int64_t weight_step = w_.step / Units::kElements;
    if (!Block::kReadsWeightsDirectly || w_.transposed || !whole_units || rows % Block::kRows != 0) {
      const int64_t padded_rows = round_up(rows, larger(Block::kRows, kWidth));
      units = weight_step = round_up(units, kWidth);
      uint32_t* to = (uint32_t*)scratch(kScratchWeights, padded_rows * units * sizeof(uint32_t));
      Block::pack_weights(w_, row, padded_rows, k, units, to);
      weights = to;
      next = nullptr;
    }
    int64_t p = 0;
    for (int64_t groups = ceil_divide(panels, Block::kPanels); groups > 0; groups--) {
      const int64_t count = ceil_divide(panels - p, groups);  // 2 + 2 rather than 3 + 1
      const Operands operands{weights, weight_step, round_up(rows, Block::kRows), packed(u, first_panel + p),
                              slice_units_ * kWidth, units, sums + p * sum_step, sum_step, u > 0,
                              p == 0 ? (const uint32_t*)next : nullptr};
      p += count;
      if constexpr (Block::kHalvesPanels) {
        if (halves_) {
          Block::multiply_halves(operands);
          continue;
        }
      }
      Block::multiply(count, operands);
    }
  }

  // sums (parts, rows, kWidth), the parts part_step apart -> y (kWidth from input row m on, rows from column n on)
  void write_panel(const float* sums, int64_t part_step, int64_t n, int64_t rows, int64_t m) const {
    const int64_t inputs = smaller(kWidth, x_.rows - m);
    for (int64_t r = 0; r < rows; r += kWidth) {
      uintv v[2][kWidth];
      for (int part = 0; part < epilogue_.parts(); part++) {
        const float* from = sums + part * part_step + r * kWidth;
        for (int i = 0; i < kWidth; i++) v[part][i] = load_bits<uintv>(from + i * kWidth);
        transpose(v[part]);
      }
      for (int64_t i = 0; i < inputs; i++) {
        const floatv up = epilogue_.swiglu ? bit_cast<floatv>(v[1][i]) : floatv{};
        epilogue_.write(m + i, n + r, rows - r, bit_cast<floatv>(v[0][i]), up);
      }
    }
  }
};

}  // namespace mindgen::MG_ISA
