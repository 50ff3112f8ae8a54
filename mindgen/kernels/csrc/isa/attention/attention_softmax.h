// The online softmax of attention: scores become weights, relative to the highest score so far.
#pragma once
#include <float.h>

#include "attention.h"
#include "block_kernels.h"
#include "parallel.h"
#include "scratch.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kTileKeys = 128;  // packed at a time: a multiple of what a vector of units holds
constexpr int64_t kBandRows = 32;   // scored at a time: a multiple of every block's kRows

// The attention of a tile's rows to some keys. Scores are taken in powers of two.
struct Softmax {
  float* sums;          // (head_panels, rows, kWidth): the values weighted with 2^(score - maximum)
  float* maxima;        // (rows): of the scores
  float* denominators;  // (rows): sums of the weights
  int64_t rows;         // a multiple of kWidth
  int64_t head_panels;

  static int64_t num_floats(int64_t rows, int64_t head_panels) { return rows * (head_panels * kWidth + 2); }
  static Softmax at(float* memory, int64_t rows, int64_t head_panels) {
    float* maxima = memory + rows * head_panels * kWidth;
    return {memory, maxima, maxima + rows, rows, head_panels};
  }

  float* sums_at(int64_t panel, int64_t row) const { return sums + (panel * rows + row) * kWidth; }

  void clear() const {
    memset(sums, 0, rows * head_panels * kWidth * sizeof(float));
    for (int64_t row = 0; row < rows; row += kWidth) {
      store(maxima + row, broadcast(-FLT_MAX));
      store(denominators + row, floatv{});
    }
  }
};

// Some rows of a tile, and how many keys of the tile at hand each of them sees.
struct Band {
  int64_t first_row;
  int64_t rows;
  int64_t visible[kBandRows];
  int64_t end_key;  // the most that any sees
};

// 2^x for x up to 127; 0 below 2^-126
static inline floatv power_of_two(floatv x) {
  const float to_exponent = 12582912.0f + 127;  // 1.5 * 2^23: the sum's lowest bits are n + 127
  x = maximum(broadcast(-127.0f), x);
  const floatv shifted = x + to_exponent, r = x - (shifted - to_exponent);
  floatv y = r * 1.3264726e-3f + 9.6715130e-3f;
  y = y * r + 5.5507336e-2f;
  y = y * r + 2.4022242e-1f;
  y = y * r + 6.9314700e-1f;
  y = y * r + 1.0f;
  return y * bit_cast<floatv>(bit_cast<uintv>(shifted) << 23);
}

template <int... lane>
static intv lanes_below(int64_t count, std::integer_sequence<int, lane...>) {
  return intv{lane...} < (int32_t)count;
}
// For the lanes of the first count keys; other is what the rest gets.
static inline floatv select_first(int64_t count, floatv v, float other) {
  return select(lanes_below(count, std::make_integer_sequence<int, kWidth>()), v, broadcast(other));
}

// v[i]: kWidth units of key i, zero from count keys and size elements on
template <class Units, class T>
__attribute__((always_inline)) static inline void load_keys(const T* key, const int64_t* offsets, int64_t count,
                                                            int64_t size, uintv* v) {
  if (count >= kWidth && size >= kWidth * Units::kElements) {
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) v[i] = Units::load_along_depth(key + offsets[i], kWidth * Units::kElements);
  } else {
    for (int i = 0; i < kWidth; i++) v[i] = i < count ? Units::load_along_depth(key + offsets[i], size) : uintv{};
  }
}

// scores (panels, kBandRows, kWidth) of one row -> a vector whose highest lane is the highest score
static inline floatv highest_score(const float* scores, float factor, int64_t visible) {
  floatv highest = broadcast(-FLT_MAX);
  int64_t key = 0;
  for (; key + kWidth <= visible; key += kWidth) highest = maximum(highest, load(scores + key * kBandRows) * factor);
  if (key < visible) {
    const floatv last = load(scores + key * kBandRows) * factor;
    highest = maximum(highest, select_first(visible - key, last, -FLT_MAX));
  }
  return highest;
}

// The weights of one row, zero from `visible` to end_key, go to `to` (kTileKeys) as units of a block's left operand.
// Returns a vector that sums up to their sum.
template <class Block>
static inline floatv store_weights(const float* scores, float factor, float maximum, int64_t visible, int64_t end_key,
                                   uint32_t* to) {
  using Units = typename Block::Units;
  constexpr int64_t kKeys = Units::kElements * kWidth;
  floatv total{}, weights[Units::kElements];
  int64_t key = 0;
  for (; key + kKeys <= visible; key += kKeys) {
#pragma GCC unroll 2
    for (int i = 0; i < Units::kElements; i++) {
      weights[i] = power_of_two(load(scores + (key + i * kWidth) * kBandRows) * factor - maximum);
      total += weights[i];
    }
    store_units(to + key / Units::kElements, Units::from_floats(weights));
  }
  for (; key < end_key; key += kKeys) {
    for (int i = 0; i < Units::kElements; i++) {
      const int64_t first = key + i * kWidth;
      weights[i] = floatv{};
      if (first >= visible) continue;
      const floatv weight = power_of_two(load(scores + first * kBandRows) * factor - maximum);
      weights[i] = select_first(visible - first, weight, 0);
      total += weights[i];
    }
    store_units(to + key / Units::kElements, Units::from_floats(weights));
  }
  return total;
}

static inline bool all_ones(floatv v) {
  const intv different = v != broadcast(1);
  int32_t lanes[kWidth], any = 0;
  memcpy(lanes, &different, sizeof(lanes));
  for (int i = 0; i < kWidth; i++) any |= lanes[i];
  return any == 0;
}

// Turns a band's scores (panels, kBandRows, kWidth), yet without the factor, into weights (kBandRows, kTileKeys).
template <class Block>
static void add_scores(const Softmax& softmax, const Band& band, float factor, const float* scores,
                       uint32_t* weights) {
  constexpr int64_t kTileUnits = kTileKeys / Block::Units::kElements;
  for (int64_t first = 0; first < band.rows; first += kWidth) {
    const int64_t count = smaller(kWidth, band.rows - first);
    floatv v[kWidth];
    for (int64_t i = 0; i < kWidth; i++) {
      v[i] = i < count ? highest_score(scores + (first + i) * kWidth, factor, band.visible[first + i]) : floatv{};
    }
    float* maxima = softmax.maxima + band.first_row + first;
    const floatv highest = maxima_of_each(v);
    const floatv new_maxima = maximum(highest, load(maxima));
    const floatv correction = power_of_two(load(maxima) - new_maxima);
    store(maxima, new_maxima);

    for (int64_t i = 0; i < kWidth; i++) {
      const int64_t row = first + i;
      v[i] = i < count ? store_weights<Block>(scores + row * kWidth, factor, maxima[i], band.visible[row],
                                              band.end_key, weights + row * kTileUnits)
                       : floatv{};
    }
    float* denominators = softmax.denominators + band.first_row + first;
    const floatv total = sums_of_each(v);
    store(denominators, load(denominators) * correction + total);

    if (all_ones(correction)) continue;
    for (int64_t panel = 0; panel < softmax.head_panels; panel++) {
      float* sums = softmax.sums_at(panel, band.first_row + first);
      for (int64_t i = 0; i < count; i++) store(sums + i * kWidth, load(sums + i * kWidth) * correction[i]);
    }
  }
}

// result becomes that of its own keys and those of addition.
static void merge(const Softmax& result, const Softmax& addition, int64_t rows) {
  for (int64_t first = 0; first < rows; first += kWidth) {
    const floatv new_maxima = maximum(load(result.maxima + first), load(addition.maxima + first));
    const floatv old_weight = power_of_two(load(result.maxima + first) - new_maxima);
    const floatv new_weight = power_of_two(load(addition.maxima + first) - new_maxima);
    store(result.maxima + first, new_maxima);
    float* denominators = result.denominators + first;
    store(denominators, load(denominators) * old_weight + load(addition.denominators + first) * new_weight);
    for (int64_t panel = 0; panel < result.head_panels; panel++) {
      float* sums = result.sums_at(panel, first);
      const float* added = addition.sums_at(panel, first);
      for (int64_t i = 0; i < smaller(kWidth, rows - first); i++) {
        const floatv both = load(sums + i * kWidth) * old_weight[i] + load(added + i * kWidth) * new_weight[i];
        store(sums + i * kWidth, both);
      }
    }
  }
}

}  // namespace
}  // namespace mindgen::MG_ISA
