// Attention's steps on one tile: loading queries, keys and values as float32, and the online softmax.
#pragma once
#include <math.h>

#include "attention.h"
#include "scratch.h"
#include "shuffle.h"
#include "simd.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kTileKeys = 64;  // a multiple of the lanes of every instruction set

// The attention of a tile to some keys. Its rows are (query, query head of the group) pairs.
struct Softmax {
  float* sums;          // (rows, padded_size): the values weighted with exp(score - maximum)
  float* maxima;        // (rows): of the scores
  float* denominators;  // (rows): sums of the weights

  static int64_t num_floats(int64_t rows, int64_t padded_size) { return rows * (padded_size + 2); }
  static Softmax at(float* memory, int64_t rows, int64_t padded_size) {
    return {memory, memory + rows * padded_size, memory + rows * (padded_size + 1)};
  }
};

// What a thread needs to take a tile over its keys, kTileKeys at a time.
struct Workspace {
  float* query;      // (rows, head_size), times the scale
  float* keys;       // (head_size, kTileKeys)
  float* values;     // (kTileKeys, padded_size)
  float* scores;     // (rows, kTileKeys); then the weights
  Softmax result;    // of the chunks so far
  Softmax addition;  // of one more chunk
  int64_t rows;
  int64_t head_size;
  int64_t padded_size;  // head_size rounded up to whole vectors
};

int64_t round_up(int64_t count) { return (count + kWidth - 1) / kWidth * kWidth; }

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// This thread's, for tiles of at most `rows` rows.
Workspace make_workspace(int64_t rows, int64_t head_size) {
  const int64_t padded_size = round_up(head_size), softmax_floats = Softmax::num_floats(rows, padded_size);
  const int64_t floats = kTileKeys * (head_size + padded_size + rows) + rows * head_size + 2 * softmax_floats;
  Workspace work{};
  work.rows = rows;
  work.head_size = head_size;
  work.padded_size = padded_size;
  work.keys = static_cast<float*>(scratch(kScratchInputs, floats * sizeof(float)));
  work.values = work.keys + kTileKeys * head_size;
  work.query = work.values + kTileKeys * padded_size;
  work.scores = work.query + rows * head_size;
  float* rest = work.scores + rows * kTileKeys;
  work.result = Softmax::at(rest, rows, padded_size);
  work.addition = Softmax::at(rest + softmax_floats, rows, padded_size);
  return work;
}

template <class T>
void load_queries(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, Workspace& work) {
  const int64_t group = call.num_query_heads / call.num_kv_heads;
  work.rows = tile.num_queries * group;
  const int64_t width = call.num_query_heads * call.head_size;
  const T* first = static_cast<const T*>(call.query) + tile.first_query * width + kv_head * group * call.head_size;
  for (int64_t row = 0; row < work.rows; row++) {
    const T* from = first + row / group * width + row % group * call.head_size;
    float* to = work.query + row * work.head_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) {
      const int64_t left = work.head_size - d;
      store_upto(to + d, load_upto(from + d, left) * call.scale, left);
    }
  }
}

// Where `count` neighbouring keys of a sequence are, as offsets into key and value.
struct KeyOffsets {
  int64_t at[kTileKeys];
  int64_t count;
};

void find_keys(const AttentionCall& call, const AttentionTile& tile, int64_t first_key, int64_t end_key,
               KeyOffsets& keys) {
  const int64_t width = call.num_kv_heads * call.head_size;
  keys.count = smaller(kTileKeys, end_key - first_key);
  for (int64_t i = 0; i < keys.count;) {
    const int64_t key = first_key + i, in_block = key % call.block_size;
    const int64_t end = smaller(i + call.block_size - in_block, keys.count);
    int64_t row = tile.block_table ? tile.block_table[key / call.block_size] * call.block_size + in_block
                                   : tile.first_key_row + key;
    while (i < end) keys.at[i++] = row++ * width;
  }
}

// Blocks of a cache lie anywhere, which the hardware cannot foresee.
template <class T>
void prefetch(const T* from, const KeyOffsets& keys, int64_t head_size) {
  const int64_t cache_line = 64 / sizeof(T);
  for (int64_t i = 0; i < keys.count; i++) {
    for (int64_t d = 0; d < head_size; d += cache_line) __builtin_prefetch(from + keys.at[i] + d);
  }
}

template <class T>
void load_keys(const T* from, const KeyOffsets& keys, const Workspace& work) {
  floatv block[kWidth];
  for (int64_t first = 0; first < keys.count; first += kWidth) {
    for (int64_t d = 0; d < work.head_size; d += kWidth) {
      const int64_t size = smaller(kWidth, work.head_size - d);
      if (size == kWidth && first + kWidth <= keys.count) {
#pragma GCC unroll 16
        for (int64_t i = 0; i < kWidth; i++) block[i] = load(from + keys.at[first + i] + d);
      } else {
        for (int64_t i = 0; i < kWidth; i++) {
          block[i] = first + i < keys.count ? load_upto(from + keys.at[first + i] + d, size) : floatv{};
        }
      }
      transpose(block);
      for (int64_t i = 0; i < size; i++) store(work.keys + (d + i) * kTileKeys + first, block[i]);
    }
  }
}

template <class T>
void load_values(const T* from, const KeyOffsets& keys, const Workspace& work) {
  for (int64_t i = 0; i < keys.count; i++) {
    const T* value = from + keys.at[i];
    float* to = work.values + i * work.padded_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) store(to + d, load_upto(value + d, work.head_size - d));
  }
}

void clear(Softmax& softmax, const Workspace& work) {
  memset(softmax.sums, 0, work.rows * work.padded_size * sizeof(float));
  for (int64_t row = 0; row < work.rows; row++) {
    softmax.maxima[row] = -INFINITY;
    softmax.denominators[row] = 0;
  }
}

// Turns a row's scores, of which it sees the first `visible`, into weights relative to its highest score so far.
void add_scores(Softmax& softmax, const Workspace& work, int64_t row, int64_t visible, int64_t count) {
  float* scores = work.scores + row * kTileKeys;
  if (visible <= 0) {
    memset(scores, 0, count * sizeof(float));
    return;
  }
  for (int64_t key = visible; key < count; key++) scores[key] = -INFINITY;
  floatv highest = load(scores);
  for (int64_t key = kWidth; key < count; key += kWidth) highest = maximum(highest, load(scores + key));
  const float new_maximum = fmaxf(softmax.maxima[row], max(highest));
  floatv total{};
  for (int64_t key = 0; key < count; key += kWidth) {
    const floatv weight = exp(load(scores + key) - new_maximum);
    store(scores + key, weight);
    total += weight;
  }
  const float correction = expf(softmax.maxima[row] - new_maximum);
  softmax.denominators[row] = softmax.denominators[row] * correction + sum(total);
  softmax.maxima[row] = new_maximum;
  if (correction == 1) return;
  float* sums = softmax.sums + row * work.padded_size;
  for (int64_t d = 0; d < work.padded_size; d += kWidth) store(sums + d, load(sums + d) * correction);
}

// result becomes that of its own keys and those of addition.
void merge(Softmax& result, const Softmax& addition, const Workspace& work) {
  for (int64_t row = 0; row < work.rows; row++) {
    const float new_maximum = fmaxf(result.maxima[row], addition.maxima[row]);
    const float result_weight = expf(result.maxima[row] - new_maximum);
    const float addition_weight = expf(addition.maxima[row] - new_maximum);
    float* sums = result.sums + row * work.padded_size;
    const float* added = addition.sums + row * work.padded_size;
    for (int64_t d = 0; d < work.padded_size; d += kWidth) {
      store(sums + d, load(sums + d) * result_weight + load(added + d) * addition_weight);
    }
    result.denominators[row] =
        result.denominators[row] * result_weight + addition.denominators[row] * addition_weight;
    result.maxima[row] = new_maximum;
  }
}

}  // namespace
}  // namespace mindgen::MG_ISA
