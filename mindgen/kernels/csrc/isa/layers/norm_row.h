// Root mean square and layer normalization of one row.
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

struct Moments {
  float mean, rstd;  // 1 / sqrt(variance + epsilon)
};

// y may be x.
template <class T>
static Moments layer_normalize_row(const T* x, const T* gamma, const T* beta, T* y, int64_t H, float epsilon) {
  floatv total{}, squares{};
  for (int64_t i = 0; i < H; i += kWidth) total += load_upto(x + i, H - i);
  const float mean = sum(total) / H;
  for (int64_t i = 0; i < H; i += kWidth) {
    floatv centred = load_upto(x + i, H - i) - mean;
    if (H - i < kWidth) centred = select(lane_numbers() < (int32_t)(H - i), centred, floatv{});
    squares += centred * centred;
  }
  const float rstd = 1 / sqrtf(sum(squares) / H + epsilon);
  for (int64_t i = 0; i < H; i += kWidth) {
    const int64_t left = H - i;
    const floatv normed = (load_upto(x + i, left) - mean) * rstd;
    store_upto(y + i, normed * load_upto(gamma + i, left) + load_upto(beta + i, left), left);
  }
  return {mean, rstd};
}

}  // namespace mindgen::MG_ISA
