// The product in tiles: Y^T = W X^T, blocked for the caches. X is packed into panels once, all K of it.
#pragma once
#include "epilogue.h"
#include "parallel.h"
#include "scratch.h"
#include "tile_block.h"

namespace mindgen::MG_ISA {

template <class T, class Y>
class PanelProduct {
  using Block = TileBlock;
  using Units = Block::Units;
  static constexpr int64_t kChunkPanels = 512 / kWidth;  // the sums of so many with a block of weights fit in L2
  static constexpr int64_t kThreadBlocks = 4;            // or a multiple, so that all threads end together

  const Matrix<T> x_, w_;
  const Epilogue<T, Y> epilogue_;
  const int threads_;
  const int64_t all_panels_, units_;
  int64_t slice_units_;           // K is cut into slices of so many units
  int64_t first_panel_, panels_;  // the chunk of panels at hand
  uint32_t* packed_;              // (slices, panels, units of a slice, kWidth)

 public:
  PanelProduct(const Matrix<T>& x, const Matrix<T>& w, const Epilogue<T, Y>& epilogue, int threads)
      : x_(x), w_(w), epilogue_(epilogue), threads_(threads), all_panels_(ceil_divide(x.rows, kWidth)),
        units_(ceil_divide(x.depth, Units::kElements)) {
    const int64_t slices = larger(1, ceil_divide(units_, Block::kSliceUnits));
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
      for (int part = 0; part < epilogue_.parts(); part++) {
        const int64_t part_row = part * epilogue_.columns + row;
        multiply_slice(part_row, rows, first_panel, panels, u, sums + part * part_step, sum_step);
      }
    }
    for (int64_t p = 0; p < panels; p++) {
      write_panel(sums + p * sum_step, part_step, row, rows, (first_panel_ + first_panel + p) * kWidth);
    }
  }

  // The share of the slice from unit u on.
  void multiply_slice(int64_t row, int64_t rows, int64_t first_panel, int64_t panels, int64_t u, float* sums,
                      int64_t sum_step) const {
    const int64_t units = round_up(smaller(slice_units_, units_ - u), kWidth);
    const int64_t padded_rows = round_up(rows, larger(Block::kRows, kWidth));
    uint32_t* weights = (uint32_t*)scratch(kScratchWeights, padded_rows * units * sizeof(uint32_t));
    Block::pack_weights(w_, row, padded_rows, u * Units::kElements, units, weights);
    int64_t p = 0;
    for (int64_t groups = ceil_divide(panels, Block::kPanels); groups > 0; groups--) {
      const int64_t count = ceil_divide(panels - p, groups);  // 2 + 2 rather than 3 + 1
      Block::multiply(count, {weights, units, round_up(rows, Block::kRows), packed(u, first_panel + p),
                              slice_units_ * kWidth, units, sums + p * sum_step, sum_step, u > 0});
      p += count;
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
