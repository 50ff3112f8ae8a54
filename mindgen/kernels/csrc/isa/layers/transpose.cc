#include "dispatch.h"
#include "shuffle.h"

namespace mindgen::MG_ISA {
namespace {

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Of two rows of blocks of HALF lanes: the left blocks of both, and the right ones.
template <int HALF, int... lane>
inline floatv left_blocks(floatv a, floatv b, std::integer_sequence<int, lane...>) {
  return floatv{(lane & HALF ? b : a)[lane & ~HALF]...};
}
template <int HALF, int... lane>
inline floatv right_blocks(floatv a, floatv b, std::integer_sequence<int, lane...>) {
  return floatv{(lane & HALF ? b : a)[lane | HALF]...};
}

// Turns every pair of blocks of HALF lanes, then larger ones.
template <int HALF>
inline void transpose_lanes(floatv* v) {
  if constexpr (HALF < kWidth) {
    for (int i = 0; i < kWidth; i++) {
      if (i & HALF) continue;
      const floatv a = v[i], b = v[i + HALF];
      v[i] = left_blocks<HALF>(a, b, Lanes());
      v[i + HALF] = right_blocks<HALF>(a, b, Lanes());
    }
    transpose_lanes<2 * HALF>(v);
  }
}

// x (rows, columns) to y, a row of which is a column of x; both sizes up to kWidth.
template <class From, class To>
void transpose_tile(const From* x, int64_t x_step, To* y, int64_t y_step, int64_t rows, int64_t columns, float scale) {
  floatv v[kWidth];
  for (int64_t row = 0; row < kWidth; row++) {
    v[row] = row < rows ? load_upto(x + row * x_step, columns) * scale : floatv{};
  }
  transpose_lanes<1>(v);
  for (int64_t column = 0; column < columns; column++) store_upto(y + column * y_step, v[column], rows);
}

}  // namespace

int scale_transpose(const void* x, int64_t x_step, mg_dtype from, void* y, int64_t y_step, mg_dtype to, int64_t rows,
                    int64_t columns, float scale) {
  for_dtype(from, [&](auto from_type) {
    for_dtype(to, [&](auto to_type) {
      const auto* source = (const decltype(from_type)*)x;
      auto* target = (decltype(to_type)*)y;
      for (int64_t row = 0; row < rows; row += kWidth) {
        for (int64_t column = 0; column < columns; column += kWidth) {
          transpose_tile(source + row * x_step + column, x_step, target + column * y_step + row, y_step,
                         smaller(rows - row, kWidth), smaller(columns - column, kWidth), scale);
        }
      }
    });
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
