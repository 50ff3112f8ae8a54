// Vectors whose lanes come from other lanes: written out lane by lane, which compilers make one instruction of.
#pragma once
#include <utility>

#include "simd.h"

namespace mindgen::MG_ISA {

using Lanes = std::make_integer_sequence<int, kWidth>;

template <int... lane>
static floatv swap_neighbours(floatv a, std::integer_sequence<int, lane...>) {
  return floatv{a[lane ^ 1]...};
}

}  // namespace mindgen::MG_ISA
