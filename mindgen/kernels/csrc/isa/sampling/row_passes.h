// Passes over a row of logits, block by block.
#pragma once
#include <math.h>

#include "simd.h"

namespace mindgen::MG_ISA {

constexpr int64_t kBlock = 256;

static inline int64_t num_blocks(int64_t count) { return (count + kBlock - 1) / kBlock; }
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// One bit for each lane of a comparison's result, the first lane's lowest.
static inline uint32_t bits_of(intv mask) {
#if defined(__AVX512BF16__)
  return _mm512_movepi32_mask(bit_cast<__m512i>(mask));
#elif defined(__AVX2__)
  return (uint32_t)_mm256_movemask_ps(bit_cast<__m256>(mask));
#else
  uint32_t bits = 0;
  for (int i = 0; i < kWidth; i++) bits |= (mask[i] & 1u) << i;
  return bits;
#endif
}

// -inf from count elements on.
static inline floatv load_logits(const float* x, int64_t count) {
  if (count >= kWidth) return load(x);
  return select(lane_numbers() < (int32_t)count, load_partial(x, count), broadcast(-INFINITY));
}

// Of up to kBlock elements; NaN when one of them is.
static inline float block_maximum(const float* x, int64_t count) {
  floatv top[4];
  for (floatv& v : top) v = broadcast(-INFINITY);
  intv nan{};
  if (count >= kBlock) {
    for (int64_t i = 0; i < kBlock; i += 4 * kWidth) {
      for (int j = 0; j < 4; j++) {
        const floatv value = load(x + i + j * kWidth);
        nan |= value != value;
        top[j] = maximum(value, top[j]);
      }
    }
  } else {
    for (int64_t i = 0; i < count; i += kWidth) {
      const floatv value = load_logits(x + i, count - i);
      nan |= value != value;
      top[0] = maximum(value, top[0]);
    }
  }
  return bits_of(nan) ? NAN : max(maximum(maximum(top[0], top[1]), maximum(top[2], top[3])));
}

struct Peak {
  float value;  // NaN when any element is
  int64_t place;  // of the first that has this value
};

// maxima: of each block, or NULL.
static Peak find_peak(const float* x, int64_t count, float* maxima) {
  Peak peak{-INFINITY, 0};
  int64_t best = 0;
  for (int64_t block = 0; block < num_blocks(count); block++) {
    const float top = block_maximum(x + block * kBlock, count - block * kBlock);
    if (maxima) maxima[block] = top;
    if (top > peak.value) {
      peak.value = top;
      best = block;
    } else if (top != top) {
      return {NAN, 0};
    }
  }
  for (peak.place = best * kBlock; x[peak.place] != peak.value; peak.place++) {
  }
  return peak;
}

static int64_t count_at_least(const float* x, int64_t count, float value) {
  intv found{};
  for (int64_t i = 0; i < count; i += kWidth) found -= load_logits(x + i, count - i) >= value;
  int64_t total = 0;
  for (int i = 0; i < kWidth; i++) total += found[i];
  return total - (value == -INFINITY ? (kWidth - count % kWidth) % kWidth : 0);
}

// exp((x - peak) * scale) of the elements that are at least `floor`, 0 of the others.
struct Weights {
  float floor, peak, scale;

  floatv scaled(floatv x) const { return (x - peak) * scale; }
  floatv operator()(floatv x) const { return select(x >= floor, exp(scaled(x)), floatv{}); }
};

// The weights of the elements that a filter has left: those above its floor, and of those at it the ones before `limit`.
struct KeptWeights {
  const float* x;
  int64_t count;
  Weights weights;
  int64_t limit;

  // Of the lanes from the i-th element on.
  floatv operator()(int64_t i) const {
    const floatv value = load_logits(x + i, count - i);
    const intv is_early = lane_numbers() < (int32_t)(limit - i);
    return select((value > weights.floor) | ((value == weights.floor) & is_early), exp(weights.scaled(value)), floatv{});
  }

  bool has(int64_t i) const { return x[i] > weights.floor || (x[i] == weights.floor && i < limit); }

  // Larger ones go before smaller ones, equal ones by place.
  void keep_down_to(float floor, int64_t end) {
    weights.floor = floor;
    limit = end;
  }
};

// sums: of each block, or NULL. Returns their sum. weights(i) are those of the lanes from the i-th element on.
template <class WeightsAt>
static double sum_weights(int64_t count, const WeightsAt& weights, float* sums) {
  double total = 0;
  for (int64_t block = 0; block < num_blocks(count); block++) {
    const int64_t first = block * kBlock, end = least(first + kBlock, count);
    floatv even{}, odd{};
    int64_t i = first;
    for (; i + 2 * kWidth <= end; i += 2 * kWidth) {
      even += weights(i);
      odd += weights(i + kWidth);
    }
    for (; i < end; i += kWidth) even += weights(i);
    const float block_sum = sum(even + odd);
    if (sums) sums[block] = block_sum;
    total += block_sum;
  }
  return total;
}

// Where the cumulative weights come to exceed `target`, of which `sums` has each block's.
static int64_t find_place(const KeptWeights& weights, const float* sums, double target) {
  int64_t block = 0, last_block = 0;
  for (; block < num_blocks(weights.count); block++) {
    if (sums[block] > 0) last_block = block;
    if (target < sums[block]) break;
    target -= sums[block];
  }
  if (block == num_blocks(weights.count)) {  // rounding ate the last of it
    block = last_block;
    target = INFINITY;
  }
  int64_t place = block * kBlock, last_place = place;
  for (const int64_t end = least(place + kBlock, weights.count); place < end; place += kWidth) {
    float values[kWidth];
    store(values, weights(place));
    for (int i = 0; i < kWidth; i++) {
      if (values[i] <= 0) continue;
      last_place = place + i;
      if (target < values[i]) return last_place;
      target -= values[i];
    }
  }
  return last_place;
}

}  // namespace mindgen::MG_ISA
