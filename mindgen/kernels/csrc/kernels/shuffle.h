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

}  // namespace mindgen::MG_ISA
