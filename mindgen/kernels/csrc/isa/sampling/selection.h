// Which elements of a row have the largest keys: so many of them, or so much of the weight. No sorting of whole rows.
// Algorithms of the standard library are given lambdas, so that no instruction set's copy of them serves another's.
#pragma once
#include <algorithm>

#include "row_passes.h"

namespace mindgen::MG_ISA {

// Elements picked from a row, in their order. The arrays have room for kWidth more than the row.
struct Shortlist {
  float* keys;
  float* weights;
  int32_t* places;
  int64_t count;
};

// Writes the lanes of the mask to `to`, and maybe others behind them. Returns how many.
template <class V>
static inline int append(void* to, V values, uint32_t mask) {
#if defined(__AVX512BF16__)
  _mm512_storeu_si512(to, _mm512_maskz_compress_epi32((__mmask16)mask, bit_cast<__m512i>(values)));
  return __builtin_popcount(mask);
#else
  uint32_t lanes[kWidth];
  memcpy(lanes, &values, sizeof(values));
  int count = 0;
  for (; mask != 0; mask &= mask - 1) memcpy((char*)to + 4 * count++, &lanes[__builtin_ctz(mask)], 4);
  return count;
#endif
}

// Elements of at least `floor`, and above -inf, with their places: keys may be x itself.
static int64_t collect_at_least(const float* x, int64_t count, float floor, float* keys, int32_t* places) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += kWidth) {
    const floatv value = load_logits(x + i, count - i);
    const uint32_t mask = bits_of((value >= floor) & (value > -INFINITY));
    if (mask == 0) continue;
    append(places + found, lane_numbers() + (int32_t)i, mask);
    found += append(keys + found, value, mask);
  }
  return found;
}

// No element below it is among the `wanted` largest; `maxima` are those of x's blocks, and are shuffled.
static float lower_bound(float* maxima, int64_t blocks, int64_t wanted) {
  if (wanted > blocks) return -INFINITY;
  std::nth_element(maxima, maxima + wanted - 1, maxima + blocks, [](float a, float b) { return a > b; });
  return maxima[wanted - 1];
}

// sums + the weights of the keys above the pivot
static inline floatv add_above(floatv sums, floatv keys, floatv weights, float pivot) {
#if defined(__AVX512BF16__)
  const __mmask16 above = _mm512_cmp_ps_mask(keys, broadcast(pivot), _CMP_GT_OQ);
  return _mm512_mask_add_ps(sums, above, sums, weights);
#else
  return sums + bit_cast<floatv>(bit_cast<intv>(weights) & (keys > pivot));
#endif
}

constexpr int kPivots = 9;

struct Pivots {
  float at[kPivots];  // descending, the last -inf
};

constexpr int64_t kChunk = 4096;  // elements whose float32 sums are still exact enough

// above[j]: the weight of the elements' keys above pivot j. Elements tell their keys, weights and places, kWidth from
// the i-th on; keys of -inf are none's.
template <class Elements>
static void weigh_above(int64_t count, const Elements& elements, const Pivots& pivots, double* above) {
  for (int j = 0; j < kPivots; j++) above[j] = 0;
  for (int64_t chunk = 0; chunk < count; chunk += kChunk) {
    floatv sums[kPivots] = {};
    for (int64_t i = chunk; i < least(chunk + kChunk, count); i += kWidth) {
      const floatv keys = elements.keys(i), weights = elements.weights(i);
      for (int j = 0; j < kPivots; j++) sums[j] = add_above(sums[j], keys, weights, pivots.at[j]);
    }
#pragma GCC unroll 16
    for (int j = 0; j < kPivots; j++) above[j] += sum(sums[j]);  // unrolled, so that the sums stay in registers
  }
}

// What is left to search: keys above `low` up to `high`, and the weight of those above `high`.
struct Bracket {
  float low, high;
  double above;
};

// The pivots that enclose the key at which the weight reaches the target.
static inline Bracket enclose(const Pivots& pivots, const double* above, double target) {
  int j = 0;
  while (j < kPivots - 1 && above[j] < target) j++;
  return {pivots.at[j], j > 0 ? pivots.at[j - 1] : INFINITY, j > 0 ? above[j - 1] : 0};
}

// The elements within the bracket; they may be those of the shortlist itself.
template <class Elements>
static void collect_bracket(int64_t count, const Elements& elements, const Bracket& bracket, Shortlist& list) {
  int64_t found = 0;
  for (int64_t i = 0; i < count; i += kWidth) {
    const floatv keys = elements.keys(i);
    const uint32_t mask = bits_of((keys > bracket.low) & (keys <= bracket.high));
    if (mask == 0) continue;
    const floatv weights = elements.weights(i);
    const intv places = elements.places(i);
    append(list.places + found, places, mask);
    append(list.weights + found, weights, mask);
    found += append(list.keys + found, keys, mask);
  }
  list.count = found;
}

struct ListElements {
  const Shortlist& list;

  floatv keys(int64_t i) const { return load_logits(list.keys + i, list.count - i); }
  floatv weights(int64_t i) const { return load_upto(list.weights + i, list.count - i); }
  intv places(int64_t i) const { return load_bits<intv>(list.places + i); }
};

constexpr int64_t kFewEnough = 128;  // to be sorted

// Largest first, equal ones by place.
static void sort_shortlist(Shortlist& list) {
  struct Element {
    float key, weight;
    int32_t place;
  };
  Element elements[kFewEnough];
  for (int64_t i = 0; i < list.count; i++) elements[i] = {list.keys[i], list.weights[i], list.places[i]};
  std::sort(elements, elements + list.count,
            [](const Element& a, const Element& b) { return a.key != b.key ? a.key > b.key : a.place < b.place; });
  for (int64_t i = 0; i < list.count; i++) {
    list.keys[i] = elements[i].key;
    list.weights[i] = elements[i].weight;
    list.places[i] = elements[i].place;
  }
}

// From the highest key down to the lowest one, which is among them, so that each round leaves some element out. Returns
// whether there are two keys at all.
static bool spread_pivots(const Shortlist& list, Pivots& pivots) {
  floatv lowest_keys = broadcast(list.keys[0]), highest_keys = lowest_keys;
  int64_t i = 0;
  for (; i + kWidth <= list.count; i += kWidth) {
    lowest_keys = minimum(load(list.keys + i), lowest_keys);
    highest_keys = maximum(load(list.keys + i), highest_keys);
  }
  for (; i < list.count; i++) {
    lowest_keys = minimum(broadcast(list.keys[i]), lowest_keys);
    highest_keys = maximum(broadcast(list.keys[i]), highest_keys);
  }
  const float lowest = -max(-lowest_keys), highest = max(highest_keys);
  const float step = highest / (kPivots - 1) - lowest / (kPivots - 1);
  for (int j = 0; j < kPivots - 1; j++) pivots.at[j] = lowest + step * (kPivots - 2 - j);
  pivots.at[kPivots - 2] = lowest;
  pivots.at[kPivots - 1] = -INFINITY;
  return lowest < highest;
}

struct Threshold {
  float key;
  int64_t limit;  // the place from which on elements of this very key are not wanted any more
};

// The key at which the weight of the largest ones, and of equal ones in order of their places, reaches the target:
// that of the last element needed. The target counts in units of the total weight when it is relative.
template <class Elements>
static Threshold select_largest(int64_t count, const Elements& elements, const Pivots& first_pivots, double target,
                                bool relative, Shortlist& list) {
  double above[kPivots];
  weigh_above(count, elements, first_pivots, above);
  if (relative) target *= above[kPivots - 1];
  Bracket bracket = enclose(first_pivots, above, target);
  collect_bracket(count, elements, bracket, list);
  while (list.count > kFewEnough) {
    Pivots pivots;
    if (!spread_pivots(list, pivots)) break;
    const ListElements in_list{list};
    weigh_above(list.count, in_list, pivots, above);
    const Bracket inner = enclose(pivots, above, target - bracket.above);
    bracket.above += inner.above;
    collect_bracket(list.count, in_list, inner, list);
  }
  if (list.count == 0) return {-INFINITY, 0};  // rounding: the whole weight does not reach the target
  if (list.count <= kFewEnough) sort_shortlist(list);
  double reached = bracket.above + list.weights[0];
  int64_t last = 0;
  while (reached < target && last + 1 < list.count) reached += list.weights[++last];
  return {list.keys[last], list.places[last] + 1};
}

}  // namespace mindgen::MG_ISA
