// The innermost product in AMX tiles: 32 rows of weights times two panels of inputs, four tiles of sums.
#pragma once
#include "block_kernels.h"
#include "tile.h"

namespace mindgen::MG_ISA {

class TileBlock {
 public:
  using Units = PairUnits;
  // Weights are packed, as tiles load rows in one go: those 4 KB apart would fall into one set of the first cache.
  static constexpr int kRows = 2 * kTileRows;
  static constexpr int kPanels = 2;
  static constexpr int kBlockRows = 256;
  static constexpr int64_t kSliceUnits = 256;  // two panels so deep fit in L1

  struct Session {
    Session() { tile_configure(); }
    ~Session() { tile_release(); }
  };

  // rows rows -> (rows / 16, units / 16, 16, 16): tiles in the order they are read
  template <class T>
  static void pack_weights(const Matrix<T>& w, int64_t row, int64_t rows, int64_t k, int64_t units, uint32_t* to) {
    for (int64_t r = 0; r < rows; r += kTileRows) {
      pack_rows<Units>(w, row + r, k, units, to + r * units, kWidth, kTileUnits);
    }
  }
  static void multiply(int64_t panels, const Operands& o) {
    tile_memory_barrier();
    for (int64_t row = 0; row < o.rows; row += kRows) {
      const uint32_t* weights = o.weights + row * o.weight_step;
      float* sums = o.sums + row * kWidth;
      if (panels == 2) {
        multiply_pair(o, weights, sums);
      } else {
        multiply_single(o, weights, sums);
      }
    }
  }

 private:
  static constexpr int64_t kTileUnits = kTileRows * kWidth;
  static constexpr int64_t kStride = kTileRowBytes;

  // Tiles 0 to 3 are the sums: rows 0..15 of both panels, then rows 16..31.
  static void multiply_pair(const Operands& o, const uint32_t* weights, float* sums) {
    if (o.accumulate) {
      tile_load(0, sums, kStride);
      tile_load(1, sums + o.sum_step, kStride);
      tile_load(2, sums + kTileUnits, kStride);
      tile_load(3, sums + o.sum_step + kTileUnits, kStride);
    } else {
      tile_zero(0);
      tile_zero(1);
      tile_zero(2);
      tile_zero(3);
    }
    const uint32_t *upper = weights, *lower = weights + kTileRows * o.weight_step;
    const uint32_t *left = o.panels, *right = o.panels + o.panel_step;
    for (int64_t at = 0; at < o.units * kWidth; at += kTileUnits) {
      tile_load(6, left + at, kStride);
      tile_load(4, upper + at, kStride);
      tile_multiply_add(0, 4, 6);
      tile_load(7, right + at, kStride);
      tile_multiply_add(1, 4, 7);
      tile_load(5, lower + at, kStride);
      tile_multiply_add(2, 5, 6);
      tile_multiply_add(3, 5, 7);
    }
    tile_store(0, sums, kStride);
    tile_store(1, sums + o.sum_step, kStride);
    tile_store(2, sums + kTileUnits, kStride);
    tile_store(3, sums + o.sum_step + kTileUnits, kStride);
  }

  static void multiply_single(const Operands& o, const uint32_t* weights, float* sums) {
    if (o.accumulate) {
      tile_load(0, sums, kStride);
      tile_load(2, sums + kTileUnits, kStride);
    } else {
      tile_zero(0);
      tile_zero(2);
    }
    const uint32_t *upper = weights, *lower = weights + kTileRows * o.weight_step;
    for (int64_t at = 0; at < o.units * kWidth; at += kTileUnits) {
      tile_load(6, o.panels + at, kStride);
      tile_load(4, upper + at, kStride);
      tile_multiply_add(0, 4, 6);
      tile_load(5, lower + at, kStride);
      tile_multiply_add(2, 5, 6);
    }
    tile_store(0, sums, kStride);
    tile_store(2, sums + kTileUnits, kStride);
  }
};

}  // namespace mindgen::MG_ISA
