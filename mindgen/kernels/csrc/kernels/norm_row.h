// Root mean square normalization of one row.
#pragma once
#include <math.h>

#include "simd.h"

namespace mindgen::MG_ISA {

// Returns 1 / sqrt(mean(x^2) + epsilon). y may be x.
template <class T>
static float normalize_row(const T* x, const T* gamma, T* y, int64_t H, float epsilon) {
  floatv squares{};
  for (int64_t i = 0; i < H; i += kWidth) {
    const floatv value = load_upto(x + i, H - i);
    squares += value * value;
  }
  const float scale = 1 / sqrtf(sum(squares) / H + epsilon);
  for (int64_t i = 0; i < H; i += kWidth) {
    store_upto(y + i, load_upto(x + i, H - i) * scale * load_upto(gamma + i, H - i), H - i);
  }
  return scale;
}

}  // namespace mindgen::MG_ISA
