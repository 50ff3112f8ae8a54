// The product with weights stored (N, K), by dot products along K. Every sum is taken lane by lane and then over the
// lanes, in the same order however many rows there are, so that a row's result never depends on the others.
#pragma once
#include "epilogue.h"
#include "parallel.h"
#include "scratch.h"
#include "shuffle.h"
#include "units.h"

namespace mindgen::MG_ISA {

constexpr int kDotRows = 6;
constexpr int64_t kDotTaskColumns = 64;     // long enough to read in order, short enough to balance
constexpr int64_t kSliceBytes = 24 * 1024;  // of inputs: they stay in the first cache while they meet kWidth columns

// How many columns a number of rows is multiplied with at a time: the sums and what they need fill the registers.
#if defined(__AVX512BF16__) || defined(__aarch64__)
constexpr int columns_at_a_time(int) { return 4; }
#else
constexpr int columns_at_a_time(int rows) { return rows <= 3 ? 4 : 2; }
#endif

// How inputs of a type meet weights of a type, which need not be the same: what the inputs become, how a vector of weights
// is read, and how they are multiplied. A new type of weights is a row of DotOf below.

// One weight at a time, converted to float32.
template <class X, class W>
struct FloatDot {
  using Weight = W;
  using Input = float;
  static constexpr int kStep = kWidth;  // elements a vector holds

  static inline floatv load_inputs(const Input* from) { return load(from); }
  static inline floatv load_weights(const Weight* from) { return load(from); }
  static inline floatv load_weights(const Weight* from, int64_t count) { return load_upto(from, count); }
  static inline floatv multiply_add(floatv weights, floatv inputs, floatv sums) { return sums + weights * inputs; }

  static void prepare_row(const X* x, int64_t K, Input* to) {
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

template <class X, class W>
struct DotOf {
  using type = FloatDot<X, W>;
};
#if defined(__AVX512BF16__)
template <>
struct DotOf<bfloat16, bfloat16> {
  using type = PairDot;
};
#endif

// x (M, K) as the dot products take it: followed by zeros up to a whole vector.
template <class Dot>
struct Inputs {
  const typename Dot::Input* data;
  int64_t step;

  Inputs from(int64_t m, int64_t k) const { return {data + m * step + k, step}; }
};

// Valid until the thread's next call.
template <class Dot, class X>
static Inputs<Dot> prepare_inputs(const Matrix<X>& x, int threads) {
  using Input = typename Dot::Input;
  constexpr int64_t kTaskRows = 32;
  // Room for a last vector, and never a power of two, which would have all rows share one set of the cache.
  const int64_t step = round_up(x.depth + Dot::kStep - 1, Dot::kStep);
  Input* inputs = (Input*)scratch(kScratchInputs, x.rows * step * sizeof(Input));
  parallel_for(ceil_divide(x.rows, kTaskRows), threads, [&](int64_t task) {
    for (int64_t m = task * kTaskRows; m < smaller((task + 1) * kTaskRows, x.rows); m++) {
      Dot::prepare_row(x.at(m, 0), x.depth, inputs + m * step);
    }
  });
  return {inputs, step};
}

// Loads are scarcer than registers: has the compiler load a vector once, and not for each of its uses.
template <class V>
static inline V in_register(V v) {
#if defined(__AVX2__)
  __asm__("" : "+v"(v));
#endif
  return v;
}

// lanes (ROWS, COLUMNS of kWidth) += what adds up to x (ROWS, K) times the columns of w, w_step apart. FETCHES: meanwhile
// those that follow.
template <int ROWS, int COLUMNS, bool FETCHES, class Dot>
static inline void dot_products(const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t w_step, int64_t K,
                                floatv* lanes) {
  floatv total[ROWS][COLUMNS];
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 4
    for (int n = 0; n < COLUMNS; n++) total[m][n] = lanes[m * kWidth + n];
  }
  const auto add = [&](int64_t k, const auto& load_weights) __attribute__((always_inline)) {
    decltype(Dot::load_weights(w)) weights[COLUMNS];
#pragma GCC unroll 4
    for (int n = 0; n < COLUMNS; n++) {
      if (FETCHES) __builtin_prefetch(w + (n + COLUMNS) * w_step + k);
      weights[n] = load_weights(w + n * w_step + k);
    }
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; m++) {
      const auto inputs = in_register(Dot::load_inputs(x.data + m * x.step + k));
#pragma GCC unroll 4
      for (int n = 0; n < COLUMNS; n++) total[m][n] = Dot::multiply_add(weights[n], inputs, total[m][n]);
    }
  };
  int64_t k = 0;
  for (; k + Dot::kStep <= K; k += Dot::kStep) {
    add(k, [](const auto* from) __attribute__((always_inline)) { return Dot::load_weights(from); });
  }
  if (k < K) add(k, [&](const auto* from) { return Dot::load_weights(from, K - k); });
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; m++) {
#pragma GCC unroll 4
    for (int n = 0; n < COLUMNS; n++) lanes[m * kWidth + n] = total[m][n];
  }
}

// sums (ROWS) of up to kWidth columns of w, the weights from the first of them on: x (ROWS, K) w (columns, K)^T.
template <int ROWS, bool FETCHES, class Dot>
static void dot_columns(const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t w_step, int64_t K, int64_t columns,
                        floatv* sums) {
  constexpr int kColumns = columns_at_a_time(ROWS);
  constexpr int64_t kSlice = kSliceBytes / (ROWS * sizeof(typename Dot::Input)) / Dot::kStep * Dot::kStep;
  floatv lanes[ROWS][kWidth] = {};
  for (int64_t k = 0; k < K; k += kSlice) {
    const int64_t depth = smaller(kSlice, K - k);
    const auto inputs = x.from(0, k);
    int64_t n = 0;
    for (; n + kColumns <= columns; n += kColumns) {
      dot_products<ROWS, kColumns, FETCHES>(inputs, w + n * w_step + k, w_step, depth, lanes[0] + n);
    }
    for (; n < columns; n++) dot_products<ROWS, 1, false>(inputs, w + n * w_step + k, w_step, depth, lanes[0] + n);
  }
  for (int m = 0; m < ROWS; m++) sums[m] = sums_of_each(lanes[m]);
}

template <bool FETCHES, class Dot>
static void dot_rows(int64_t rows, const Inputs<Dot>& x, const typename Dot::Weight* w, int64_t w_step, int64_t K,
                     int64_t columns, floatv* sums) {
  switch (rows) {
    case 1: return dot_columns<1, FETCHES>(x, w, w_step, K, columns, sums);
    case 2: return dot_columns<2, FETCHES>(x, w, w_step, K, columns, sums);
    case 3: return dot_columns<3, FETCHES>(x, w, w_step, K, columns, sums);
    case 4: return dot_columns<4, FETCHES>(x, w, w_step, K, columns, sums);
    case 5: return dot_columns<5, FETCHES>(x, w, w_step, K, columns, sums);
    default: return dot_columns<kDotRows, FETCHES>(x, w, w_step, K, columns, sums);
  }
}

// Of a task, so that all threads have about as much to do.
static inline int64_t task_columns(int64_t N, int threads) {
  constexpr int64_t kManyTasks = 8;  // to a thread: then one more or less does not matter
  return N < kManyTasks * threads * kDotTaskColumns ? kDotTaskColumns / 2 : kDotTaskColumns;
}

// Columns begin .. end of x (M, K) w^T.
template <class Dot, class X, class Y>
static void dot_product(int64_t M, const Inputs<Dot>& x, const Matrix<typename Dot::Weight>& w,
                        const Epilogue<X, Y>& epilogue, int64_t begin, int64_t end) {
  floatv sums[2][kDotRows] = {};
  const int64_t tiles = ceil_divide(M, kDotRows);
  for (int64_t tile = 0, m = 0; tile < tiles; tile++) {
    const int64_t rows = (M - m) / (tiles - tile);  // 4 + 4 rather than 6 + 2
    const auto dot = tile == 0 ? dot_rows<true, Dot> : dot_rows<false, Dot>;
    for (int64_t n = begin; n < end; n += kWidth) {
      for (int part = 0; part < epilogue.parts(); part++) {
        const auto* weights = w.at(part * epilogue.columns + n, 0);
        dot(rows, x.from(m, 0), weights, w.step, w.depth, smaller(kWidth, end - n), sums[part]);
      }
      for (int64_t row = 0; row < rows; row++) epilogue.write(m + row, n, end - n, sums[0][row], sums[1][row]);
    }
    m += rows;
  }
}

}  // namespace mindgen::MG_ISA
