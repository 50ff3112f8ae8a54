// What becomes of the float32 sums of a product x w^T on their way to y.
#pragma once
#include "simd.h"

namespace mindgen::MG_ISA {

// y (M, N) = sums + bias + residual, or with swiglu = silu(gate) * up, where gate and up are the sums of w[:N] and w[N:],
// each with its bias. Sums are rounded to Y before anything but the bias joins them, as they are where the same ops run
// one by one: a row must not change with the adapters of other rows, which keep ops apart.
template <class T, class Y = T>
struct Epilogue {
  Y* y;
  int64_t step;                // from row to row, of y and residual
  int64_t columns;             // N
  const T* bias = nullptr;     // NULL or as many as w has rows
  const Y* residual = nullptr;  // NULL or (M, N), possibly y
  bool swiglu = false;

  int parts() const { return swiglu ? 2 : 1; }
  Epilogue from_row(int64_t m) const {
    Epilogue rest = *this;
    rest.y += m * step;
    if (residual) rest.residual += m * step;
    return rest;
  }

  // Columns n .. n + count of row m, at most kWidth of them; the sums of each part.
  void write(int64_t m, int64_t n, int64_t count, floatv sums, floatv up = floatv{}) const {
    floatv value = add_bias(sums, n, count);
    if (swiglu) value = silu(rounded(value)) * rounded(add_bias(up, columns + n, count));
    if (residual) value = rounded(value) + load_upto(residual + m * step + n, count);
    store_upto(y + m * step + n, value, count);
  }

 private:
  static floatv rounded(floatv value) {
    Y elements[kWidth];
    store(elements, value);
    return load(elements);
  }
  floatv add_bias(floatv sums, int64_t n, int64_t count) const {
    return bias ? sums + load_upto(bias + n, count) : sums;
  }
};

}  // namespace mindgen::MG_ISA
