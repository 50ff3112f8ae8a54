// Vectors whose lanes come from other lanes: written out lane by lane, which compilers make one instruction of.
#pragma once
#include <functional>
#include <utility>

#include "simd.h"

namespace mindgen::MG_ISA {

using Lanes = std::make_integer_sequence<int, kWidth>;

template <int... lane>
static floatv swap_neighbours(floatv a, std::integer_sequence<int, lane...>) {
  return floatv{a[lane ^ 1]...};
}

// Blocks of 2 * HALF lanes, those of a before those of b, each folded into HALF lanes.
template <int HALF, class Operation, int... lane>
static inline floatv fold(floatv a, floatv b, const Operation& operation, std::integer_sequence<int, lane...>) {
  constexpr int kBlocks = kWidth / (2 * HALF);
  const floatv low = {(lane / HALF < kBlocks ? a : b)[lane / HALF % kBlocks * 2 * HALF + lane % HALF]...};
  const floatv high = {(lane / HALF < kBlocks ? a : b)[lane / HALF % kBlocks * 2 * HALF + lane % HALF + HALF]...};
  return operation(low, high);
}

template <int COUNT, class Operation>
static inline floatv fold_all(const floatv* v, const Operation& operation) {
  if constexpr (COUNT == 1) {
    return v[0];
  } else {
    const floatv a = fold_all<COUNT / 2>(v, operation), b = fold_all<COUNT / 2>(v + COUNT / 2, operation);
    return fold<kWidth / COUNT>(a, b, operation, Lanes());
  }
}

// Lane i is sum(v[i]), added in the same order.
static inline floatv sums_of_each(const floatv* v) { return fold_all<kWidth>(v, std::plus<>()); }
// Lane i is max(v[i]).
static inline floatv maxima_of_each(const floatv* v) { return fold_all<kWidth>(v, maximum); }

}  // namespace mindgen::MG_ISA
