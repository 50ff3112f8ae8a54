// Philox4x64-10, a random number generator without a state (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", 2011).
#pragma once
#include <stdint.h>

namespace mindgen {

// In [0, 1): the first of numpy.random.Generator(numpy.random.Philox(key=seed + (round << 64),
// counter=position)).random().
static inline double philox_uniform(uint64_t seed, uint64_t position, uint64_t round_of_draw = 0) {
  typedef unsigned __int128 product;
  const uint64_t next = position + 1;  // numpy counts before it generates
  uint64_t a = next, b = next == 0, c = 0, d = 0, key0 = seed, key1 = round_of_draw;
  for (int round = 0; round < 10; round++) {
    const product low = (product)a * 0xD2E7470EE14C6C93, high = (product)c * 0xCA5A826395121157;
    a = (uint64_t)(high >> 64) ^ b ^ key0;
    b = (uint64_t)high;
    c = (uint64_t)(low >> 64) ^ d ^ key1;
    d = (uint64_t)low;
    key0 += 0x9E3779B97F4A7C15;
    key1 += 0xBB67AE8584CAA73B;
  }
  return (double)(a >> 11) * 0x1p-53;
}

}  // namespace mindgen
