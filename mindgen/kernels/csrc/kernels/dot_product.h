// The product for few rows of inputs, by dot products along K: every weight is read once, in memory order.
#pragma once
#include "scratch.h"
#include "simd.h"

namespace mindgen::MG_ISA {

constexpr int64_t kMaxDotRows = 8;
constexpr int64_t kDotColumns = 64;  // to a thread at a time: long enough to read in order, short enough to balance

// One weight at a time, converted to float32.
template <class Element>
struct FloatDot {
  using Weight = Element;
  using Input = float;
  static constexpr int kStep = kWidth;  // elements a vector holds

  static inline floatv load_weights(const Weight* from) { return load(from); }
  static inline floatv load_weights(const Weight* from, int64_t count) { return load_partial(from, count); }
  static inline floatv load_inputs(const Input* from) { return load(from); }
  static inline floatv load_inputs(const Input* from, int64_t count) { return load_partial(from, count); }
  static inline floatv multiply_add(floatv weights, floatv inputs, floatv sums) { return sums + weights * inputs; }

  static const float* prepare(const float* x, int64_t) { return x; }
  template <class Half>
  static const float* prepare(const Half* x, int64_t count) {
    float* inputs = (float*)scratch(kScratchInputs, count * sizeof(float));
    for (int64_t i = 0; i < count; i += kWidth) store_upto(inputs + i, load_upto(x + i, count - i), count - i);
    return inputs;
  }
};

#if defined(__AVX512BF16__)
struct PairDot {
  using Weight = bfloat16;
  using Input = bfloat16;
  static constexpr int kStep = 2 * kWidth;

  static inline __m512bh load_weights(const bfloat16* from) { return load_bits<__m512bh>(from); }
  static inline __m512bh load_weights(const bfloat16* from, int64_t count) {
    return bit_cast<__m512bh>(_mm512_maskz_loadu_epi16((1u << count) - 1, from));
  }
  static inline __m512bh load_inputs(const bfloat16* from) { return load_weights(from); }
  static inline __m512bh load_inputs(const bfloat16* from, int64_t count) { return load_weights(from, count); }
  static inline floatv multiply_add(__m512bh weights, __m512bh inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, weights, inputs);
  }

  static const bfloat16* prepare(const bfloat16* x, int64_t) { return x; }
};
#endif

template <class T>
struct DotOf {
  using type = FloatDot<T>;
};
#if defined(__AVX512BF16__)
template <>
struct DotOf<bfloat16> {
  using type = PairDot;
};
#endif

// sums[m] = x[m] (K) . w (K) for ROWS rows of x. Where there are few rows, several sums each hide the latency.
template <class Dot, int ROWS>
static inline void dot_products(const typename Dot::Input* x, const typename Dot::Weight* w, int64_t K, float* sums) {
  constexpr int kUnroll = ROWS == 1 ? 4 : ROWS <= 4 ? 2 : 1;
  constexpr int64_t kPrefetch = 4096 / sizeof(*w);
  floatv total[ROWS][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * Dot::kStep <= K; k += kUnroll * Dot::kStep) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++) {
      const int64_t at = k + u * Dot::kStep;
      __builtin_prefetch(w + at + kPrefetch);
      const auto weights = Dot::load_weights(w + at);
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; m++) {
        total[m][u] = Dot::multiply_add(weights, Dot::load_inputs(x + m * K + at), total[m][u]);
      }
    }
  }
  for (; k < K; k += Dot::kStep) {
    const bool whole = k + Dot::kStep <= K;
    const auto weights = whole ? Dot::load_weights(w + k) : Dot::load_weights(w + k, K - k);
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; m++) {
      const auto* from = x + m * K + k;
      const auto inputs = whole ? Dot::load_inputs(from) : Dot::load_inputs(from, K - k);
      total[m][0] = Dot::multiply_add(weights, inputs, total[m][0]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 4
    for (int u = 1; u < kUnroll; u++) total[m][0] += total[m][u];
    sums[m] = sum(total[m][0]);
  }
}

// y (ROWS, N) columns begin .. end.
template <int ROWS, class T, class Input>
static void dot_columns(const Input* x, const T* w, const T* bias, T* y, int64_t N, int64_t K, int64_t begin,
                        int64_t end) {
  using Dot = typename DotOf<T>::type;
  for (int64_t n = begin; n < end; n++) {
    float sums[ROWS];
    dot_products<Dot, ROWS>(x, w + n * K, K, sums);
    for (int m = 0; m < ROWS; m++) y[m * N + n] = from_float<T>(bias ? sums[m] + to_float(bias[n]) : sums[m]);
  }
}

// Columns begin .. end of y (M, N) = x (M, K) w (N, K)^T + bias (N); M <= kMaxDotRows, x prepared.
template <class T, class Input>
static void dot_product(int64_t M, const Input* x, const T* w, const T* bias, T* y, int64_t N, int64_t K,
                        int64_t begin, int64_t end) {
  switch (M) {
    case 1: return dot_columns<1>(x, w, bias, y, N, K, begin, end);
    case 2: return dot_columns<2>(x, w, bias, y, N, K, begin, end);
    case 3: return dot_columns<3>(x, w, bias, y, N, K, begin, end);
    case 4: return dot_columns<4>(x, w, bias, y, N, K, begin, end);
    case 5: return dot_columns<5>(x, w, bias, y, N, K, begin, end);
    case 6: return dot_columns<6>(x, w, bias, y, N, K, begin, end);
    case 7: return dot_columns<7>(x, w, bias, y, N, K, begin, end);
    default: return dot_columns<8>(x, w, bias, y, N, K, begin, end);
  }
}

}  // namespace mindgen::MG_ISA
