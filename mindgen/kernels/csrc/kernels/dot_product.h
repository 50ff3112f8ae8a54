// The product for few rows of inputs, by dot products along K: every weight is read once, in memory order.
#pragma once
#include "scratch.h"
#include "simd.h"

namespace mindgen::MG_ISA {

constexpr int64_t kDotColumns = 64;  // to a thread at a time: long enough to read in order, short enough to balance

// One weight at a time, converted to float32.
template <class Element>
struct FloatDot {
  using Weight = Element;
  using Input = float;
  static constexpr int kStep = kWidth;  // elements a vector holds

  static inline floatv load_inputs(const Input* from) { return load(from); }
  static inline floatv load_weights(const Weight* from) { return load(from); }
  static inline floatv load_weights(const Weight* from, int64_t count) { return load_upto(from, count); }
  static inline floatv multiply_add(floatv weights, floatv inputs, floatv sums) { return sums + weights * inputs; }

  static void prepare_row(const Element* x, int64_t K, Input* to) {
    for (int64_t k = 0; k < K; k += kStep) store(to + k, load_upto(x + k, K - k));
  }
};

#if defined(__AVX512BF16__)
struct PairDot {
  using Weight = bfloat16;
  using Input = bfloat16;
  static constexpr int kStep = 2 * kWidth;

  static inline __m512bh load_inputs(const bfloat16* from) { return load_bits<__m512bh>(from); }
  static inline __m512bh load_weights(const bfloat16* from) { return load_bits<__m512bh>(from); }
  static inline __m512bh load_weights(const bfloat16* from, int64_t count) {
    const __mmask32 present = count >= kStep ? ~0u : (1u << count) - 1;
    return bit_cast<__m512bh>(_mm512_maskz_loadu_epi16(present, from));
  }
  static inline floatv multiply_add(__m512bh weights, __m512bh inputs, floatv sums) {
    return _mm512_dpbf16_ps(sums, weights, inputs);
  }

  static void prepare_row(const bfloat16* x, int64_t K, Input* to) {
    memcpy(to, x, K * sizeof(*x));
    memset(to + K, 0, (kStep - 1) * sizeof(*to));
  }
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

// The distance of prepared rows of inputs: room for a last vector, and never a power of two, which would have all rows
// share one set of the cache.
template <class Dot>
static inline int64_t input_step(int64_t K) {
  return (K + 2 * Dot::kStep - 1) / Dot::kStep * Dot::kStep;
}

// x (M, K) -> (M, input_step), zeros after K; valid until the thread's next call
template <class T>
static const typename DotOf<T>::type::Input* prepare_inputs(const T* x, int64_t M, int64_t K) {
  using Dot = typename DotOf<T>::type;
  using Input = typename Dot::Input;
  const int64_t step = input_step<Dot>(K);
  Input* inputs = (Input*)scratch(kScratchInputs, M * step * sizeof(Input));
  for (int64_t m = 0; m < M; m++) Dot::prepare_row(x + m * K, K, inputs + m * step);
  return inputs;
}

// sums (ROWS, COLUMNS) = x (ROWS, K) w (COLUMNS, K)^T. Where that makes few sums, parts of K go to sums of their own,
// to hide the latency.
template <class Dot, int ROWS, int COLUMNS>
static inline void dot_products(const typename Dot::Input* x, const typename Dot::Weight* w, int64_t K,
                                float (&sums)[ROWS][COLUMNS]) {
  constexpr int kUnroll = ROWS * COLUMNS <= 2 ? 4 : ROWS * COLUMNS <= 8 ? 2 : 1;
  constexpr int64_t kPrefetch = 4096 / sizeof(*w);
  const int64_t x_step = input_step<Dot>(K);
  floatv total[ROWS][COLUMNS][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * Dot::kStep <= K; k += kUnroll * Dot::kStep) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++) {
      const int64_t at = k + u * Dot::kStep;
#pragma GCC unroll 2
      for (int n = 0; n < COLUMNS; n++) {
        __builtin_prefetch(w + n * K + at + kPrefetch);
        const auto weights = Dot::load_weights(w + n * K + at);
#pragma GCC unroll 8
        for (int m = 0; m < ROWS; m++) {
          total[m][n][u] = Dot::multiply_add(weights, Dot::load_inputs(x + m * x_step + at), total[m][n][u]);
        }
      }
    }
  }
  for (; k < K; k += Dot::kStep) {
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; n++) {
      const auto weights = Dot::load_weights(w + n * K + k, K - k);
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; m++) {
        total[m][n][0] = Dot::multiply_add(weights, Dot::load_inputs(x + m * x_step + k), total[m][n][0]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; n++) {
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; u++) total[m][n][0] += total[m][n][u];
      sums[m][n] = sum(total[m][n][0]);
    }
  }
}

// y (ROWS, COLUMNS of N)
template <int ROWS, int COLUMNS, class T, class Input>
static inline void dot_block(const Input* x, const T* w, const T* bias, T* y, int64_t N, int64_t K) {
  float sums[ROWS][COLUMNS];
  dot_products<typename DotOf<T>::type>(x, w, K, sums);
  for (int m = 0; m < ROWS; m++) {
    for (int n = 0; n < COLUMNS; n++) {
      y[m * N + n] = from_float<T>(bias ? sums[m][n] + to_float(bias[n]) : sums[m][n]);
    }
  }
}

// Columns begin .. end of y (ROWS, N). One row of inputs keeps up with memory best if weights are read in order; more
// rows need two columns to keep the arithmetic busy.
template <int ROWS, class T, class Input>
static void dot_columns(const Input* x, const T* w, const T* bias, T* y, int64_t N, int64_t K, int64_t begin,
                        int64_t end) {
  constexpr int kColumns = ROWS > 1 ? 2 : 1;
  int64_t n = begin;
  for (; n + kColumns <= end; n += kColumns) {
    dot_block<ROWS, kColumns>(x, w + n * K, bias ? bias + n : nullptr, y + n, N, K);
  }
  if (n < end) dot_block<ROWS, 1>(x, w + n * K, bias ? bias + n : nullptr, y + n, N, K);
}

// Columns begin .. end of y (M, N) = x (M, K) w (N, K)^T + bias (N), x prepared.
template <class T, class Input>
static void dot_product(int64_t M, const Input* x, const T* w, const T* bias, T* y, int64_t N, int64_t K,
                        int64_t begin, int64_t end) {
  const int64_t x_step = input_step<typename DotOf<T>::type>(K);
  for (; M > 0; M -= 8, x += 8 * x_step, y += 8 * N) {
    switch (M) {
      case 1: dot_columns<1>(x, w, bias, y, N, K, begin, end); break;
      case 2: dot_columns<2>(x, w, bias, y, N, K, begin, end); break;
      case 3: dot_columns<3>(x, w, bias, y, N, K, begin, end); break;
      case 4: dot_columns<4>(x, w, bias, y, N, K, begin, end); break;
      case 5: dot_columns<5>(x, w, bias, y, N, K, begin, end); break;
      case 6: dot_columns<6>(x, w, bias, y, N, K, begin, end); break;
      case 7: dot_columns<7>(x, w, bias, y, N, K, begin, end); break;
      default: dot_columns<8>(x, w, bias, y, N, K, begin, end);
    }
  }
}

}  // namespace mindgen::MG_ISA
