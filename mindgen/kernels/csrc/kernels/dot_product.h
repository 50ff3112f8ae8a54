// The product for few rows of inputs, by dot products along K: every weight is read once, in memory order.
#pragma once
#include "epilogue.h"
#include "scratch.h"
#include "shuffle.h"
#include "units.h"

namespace mindgen::MG_ISA {

constexpr int64_t kDotRows = 8;
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
    if (K > 0) memcpy(to, x, K * sizeof(*x));
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

// x (M, K) as the dot products take it: followed by zeros up to a whole vector.
template <class Dot>
struct Inputs {
  const typename Dot::Input* data;
  int64_t step;

  Inputs from_row(int64_t m) const { return {data + m * step, step}; }
};

// Valid until the thread's next call.
template <class T>
static Inputs<typename DotOf<T>::type> prepare_inputs(const Matrix<T>& x) {
  using Dot = typename DotOf<T>::type;
  using Input = typename Dot::Input;
  // Room for a last vector, and never a power of two, which would have all rows share one set of the cache.
  const int64_t step = (x.depth + 2 * Dot::kStep - 1) / Dot::kStep * Dot::kStep;
  Input* inputs = (Input*)scratch(kScratchInputs, x.rows * step * sizeof(Input));
  for (int64_t m = 0; m < x.rows; m++) Dot::prepare_row(x.at(m, 0), x.depth, inputs + m * step);
  return {inputs, step};
}

// lanes (ROWS, COLUMNS of kWidth), which add up to x (ROWS, K) w (COLUMNS, K)^T. Where that makes few sums, parts of K
// go to sums of their own, to hide the latency.
template <class Dot, int ROWS, int COLUMNS>
static inline void dot_products(const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t K, floatv* lanes) {
  constexpr int kUnroll = ROWS * COLUMNS <= 2 ? 4 : ROWS * COLUMNS <= 8 ? 2 : 1;
  constexpr int64_t kPrefetch = 4096 / sizeof(*w);
  floatv total[ROWS][COLUMNS][kUnroll] = {};
  int64_t k = 0;
  for (; k + kUnroll * Dot::kStep <= K; k += kUnroll * Dot::kStep) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; u++) {
      const int64_t at = k + u * Dot::kStep;
      decltype(Dot::load_weights(w)) weights[COLUMNS];
#pragma GCC unroll 2
      for (int n = 0; n < COLUMNS; n++) {
        __builtin_prefetch(w + n * K + at + kPrefetch);
        weights[n] = Dot::load_weights(w + n * K + at);
      }
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; m++) {
        const auto inputs = Dot::load_inputs(x.data + m * x.step + at);
#pragma GCC unroll 2
        for (int n = 0; n < COLUMNS; n++) total[m][n][u] = Dot::multiply_add(weights[n], inputs, total[m][n][u]);
      }
    }
  }
  for (; k < K; k += Dot::kStep) {
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; n++) {
      const auto weights = Dot::load_weights(w + n * K + k, K - k);
#pragma GCC unroll 8
      for (int m = 0; m < ROWS; m++) {
        total[m][n][0] = Dot::multiply_add(weights, Dot::load_inputs(x.data + m * x.step + k), total[m][n][0]);
      }
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 2
    for (int n = 0; n < COLUMNS; n++) {
#pragma GCC unroll 4
      for (int u = 1; u < kUnroll; u++) total[m][n][0] += total[m][n][u];
      lanes[m * kWidth + n] = total[m][n][0];
    }
  }
}

// sums (ROWS) of up to kWidth columns each: x (ROWS, K) w (columns, K)^T. Few rows of inputs keep up with memory best
// if weights are read in order; more need two columns to keep the arithmetic busy.
template <class Dot, int ROWS>
static void dot_columns(const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t K, int64_t columns, floatv* sums) {
  constexpr int kColumns = ROWS > 4 ? 2 : 1;
  floatv lanes[ROWS][kWidth];
  int64_t n = 0;
  for (; n + kColumns <= columns; n += kColumns) dot_products<Dot, ROWS, kColumns>(x, w + n * K, K, lanes[0] + n);
  for (; n < columns; n++) dot_products<Dot, ROWS, 1>(x, w + n * K, K, lanes[0] + n);
  for (int row = 0; row < ROWS; row++) {
    for (int64_t absent = n; absent < kWidth; absent++) lanes[row][absent] = floatv{};
    sums[row] = sums_of_each(lanes[row]);
  }
}

template <class Dot>
static void dot_rows(int64_t rows, const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t K, int64_t columns,
                     floatv* sums) {
  switch (rows) {
    case 1: return dot_columns<Dot, 1>(x, w, K, columns, sums);
    case 2: return dot_columns<Dot, 2>(x, w, K, columns, sums);
    case 3: return dot_columns<Dot, 3>(x, w, K, columns, sums);
    case 4: return dot_columns<Dot, 4>(x, w, K, columns, sums);
    case 5: return dot_columns<Dot, 5>(x, w, K, columns, sums);
    case 6: return dot_columns<Dot, 6>(x, w, K, columns, sums);
    case 7: return dot_columns<Dot, 7>(x, w, K, columns, sums);
    default: return dot_columns<Dot, kDotRows>(x, w, K, columns, sums);
  }
}

// Columns begin .. end, at most kDotColumns of them, of x (M, K) w^T.
template <class T, class Y>
static void dot_product(int64_t M, const Inputs<typename DotOf<T>::type>& x, const Matrix<T>& w,
                        const Epilogue<T, Y>& epilogue, int64_t begin, int64_t end) {
  floatv sums[2][kDotColumns / kWidth][kDotRows];
  for (int64_t m = 0; m < M; m += kDotRows) {
    const int64_t rows = M - m < kDotRows ? M - m : kDotRows;
    for (int part = 0; part < epilogue.parts(); part++) {
      for (int64_t n = begin; n < end; n += kWidth) {
        const T* weights = w.at(part * epilogue.columns + n, 0);
        const int64_t columns = end - n < kWidth ? end - n : kWidth;
        dot_rows(rows, x.from_row(m), weights, w.depth, columns, sums[part][(n - begin) / kWidth]);
      }
    }
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t n = begin, i = 0; n < end; n += kWidth, i++) {
        epilogue.write(m + row, n, end - n, sums[0][i][row], epilogue.swiglu ? sums[1][i][row] : floatv{});
      }
    }
  }
}

}  // namespace mindgen::MG_ISA
