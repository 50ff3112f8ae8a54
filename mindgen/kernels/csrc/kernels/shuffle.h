// Vectors whose lanes come from other lanes: written out lane by lane, which compilers make one instruction of.
#pragma once
#include <utility>

#include "simd.h"

namespace mindgen::MG_ISA {

using Lanes = std::make_integer_sequence<int, kWidth>;

template <int... lane>
static floatv interleave(floatv a, floatv b, std::integer_sequence<int, lane...>) {
  return floatv{(lane % 2 ? b : a)[lane / 2]...};
}

template <int... lane>
static floatv interleave_upper(floatv a, floatv b, std::integer_sequence<int, lane...>) {
  return floatv{(lane % 2 ? b : a)[(lane + kWidth) / 2]...};
}

template <int... lane>
static floatv swap_neighbours(floatv a, std::integer_sequence<int, lane...>) {
  return floatv{a[lane ^ 1]...};
}

// Each perfect shuffle of the rows' halves lets one more bit of the row change places with one of the lane.
static inline void transpose(floatv* block) {
  floatv shuffled[kWidth];
#pragma GCC unroll 4
  for (int step = 1; step < kWidth; step *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kWidth / 2; i++) {
      shuffled[2 * i] = interleave(block[i], block[i + kWidth / 2], Lanes());
      shuffled[2 * i + 1] = interleave_upper(block[i], block[i + kWidth / 2], Lanes());
    }
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) block[i] = shuffled[i];
  }
}

// Blocks of 2 * HALF lanes, those of a before those of b, each folded into HALF lanes.
template <int HALF, int... lane>
static inline floatv fold(floatv a, floatv b, std::integer_sequence<int, lane...>) {
  constexpr int kBlocks = kWidth / (2 * HALF);
  const floatv low = {(lane / HALF < kBlocks ? a : b)[lane / HALF % kBlocks * 2 * HALF + lane % HALF]...};
  const floatv high = {(lane / HALF < kBlocks ? a : b)[lane / HALF % kBlocks * 2 * HALF + lane % HALF + HALF]...};
  return low + high;
}

template <int COUNT>
static inline floatv fold_all(const floatv* v) {
  if constexpr (COUNT == 1) {
    return v[0];
  } else {
    return fold<kWidth / COUNT>(fold_all<COUNT / 2>(v), fold_all<COUNT / 2>(v + COUNT / 2), Lanes());
  }
}

// Lane i is sum(v[i]), added in the same order.
static inline floatv sums_of_each(const floatv* v) { return fold_all<kWidth>(v); }

}  // namespace mindgen::MG_ISA
