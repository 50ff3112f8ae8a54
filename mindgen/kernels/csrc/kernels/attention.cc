// Causal attention with an online softmax: one core for paged and for consecutive keys and values.
#include "attention.h"

#include <math.h>

#include "dispatch.h"
#include "scratch.h"
#include "small_product.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kTileKeys = 64;  // a multiple of the lanes of every instruction set

// A tile of queries on its way over the keys, kTileKeys at a time. Its rows are (query, head of the group) pairs.
struct Workspace {
  float* query;         // (rows, head_size), times the scale
  float* keys;          // (head_size, kTileKeys)
  float* values;        // (kTileKeys, padded_size)
  float* scores;        // (rows, kTileKeys); then the probabilities before division
  float* sums;          // (rows, padded_size): the values weighted with them
  float* maxima;        // (rows): of the scores so far
  float* denominators;  // (rows): sums of the probabilities
  int64_t rows;
  int64_t head_size;
  int64_t padded_size;  // head_size rounded up to whole vectors
};

int64_t round_up(int64_t count) { return (count + kWidth - 1) / kWidth * kWidth; }

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

template <class T>
void load_queries(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, int64_t group,
                  Workspace& work) {
  const int64_t width = call.num_query_heads * call.head_size;
  const T* first = static_cast<const T*>(call.query) + tile.first_query * width + kv_head * group * call.head_size;
  for (int64_t row = 0; row < work.rows; row++) {
    const T* from = first + row / group * width + row % group * call.head_size;
    float* to = work.query + row * work.head_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) {
      const int64_t left = work.head_size - d;
      store_upto(to + d, load_upto(from + d, left) * call.scale, left);
    }
    work.maxima[row] = -INFINITY;
    work.denominators[row] = 0;
  }
  memset(work.sums, 0, work.rows * work.padded_size * sizeof(float));
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

// The lower or upper halves of a and b, taking turns.
floatv interleave(floatv a, floatv b, bool upper) {
  intv lanes;
#pragma GCC unroll 16
  for (int i = 0; i < kWidth; i++) lanes[i] = upper * kWidth / 2 + i / 2 + i % 2 * kWidth;
  return __builtin_shuffle(a, b, lanes);
}

// Each perfect shuffle of the rows' halves lets one more bit of the row change places with one of the lane.
inline void transpose(floatv* block) {
  floatv shuffled[kWidth];
#pragma GCC unroll 4
  for (int step = 1; step < kWidth; step *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kWidth / 2; i++) {
      shuffled[2 * i] = interleave(block[i], block[i + kWidth / 2], false);
      shuffled[2 * i + 1] = interleave(block[i], block[i + kWidth / 2], true);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kWidth; i++) block[i] = shuffled[i];
  }
}

template <class T>
void load_keys(const T* from, const KeyOffsets& keys, Workspace& work) {
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
void load_values(const T* from, const KeyOffsets& keys, Workspace& work) {
  for (int64_t i = 0; i < keys.count; i++) {
    const T* value = from + keys.at[i];
    float* to = work.values + i * work.padded_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) store(to + d, load_upto(value + d, work.head_size - d));
  }
}

// Turns a row's scores, of which it sees the first `visible`, into probabilities relative to its highest score so far.
void update_softmax(Workspace& work, int64_t row, int64_t visible, int64_t count) {
  float* scores = work.scores + row * kTileKeys;
  if (visible <= 0) {
    memset(scores, 0, count * sizeof(float));
    return;
  }
  for (int64_t key = visible; key < count; key++) scores[key] = -INFINITY;
  floatv highest = load(scores);
  for (int64_t key = kWidth; key < count; key += kWidth) highest = maximum(highest, load(scores + key));
  const float new_maximum = fmaxf(work.maxima[row], max(highest));
  floatv total{};
  for (int64_t key = 0; key < count; key += kWidth) {
    const floatv probability = exp(load(scores + key) - new_maximum);
    store(scores + key, probability);
    total += probability;
  }
  const float correction = expf(work.maxima[row] - new_maximum);
  work.denominators[row] = work.denominators[row] * correction + sum(total);
  work.maxima[row] = new_maximum;
  if (correction == 1) return;
  float* sums = work.sums + row * work.padded_size;
  for (int64_t d = 0; d < work.padded_size; d += kWidth) store(sums + d, load(sums + d) * correction);
}

template <class T>
void attend(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, int64_t first_key, int64_t end_key,
            Workspace& work) {
  const int64_t group = call.num_query_heads / call.num_kv_heads;
  const int64_t first_visible = tile.num_keys - tile.num_queries + 1;
  const T* key = static_cast<const T*>(call.key) + kv_head * call.head_size;
  const T* value = static_cast<const T*>(call.value) + kv_head * call.head_size;
  KeyOffsets keys, next_keys;

  work.rows = tile.num_queries * group;
  load_queries<T>(call, tile, kv_head, group, work);
  find_keys(call, tile, first_key, end_key, next_keys);
  while (first_key < end_key) {
    keys = next_keys;
    const int64_t padded_count = round_up(keys.count);
    find_keys(call, tile, first_key + keys.count, end_key, next_keys);
    prefetch(key, next_keys, call.head_size);
    load_keys(key, keys, work);
    memset(work.scores, 0, work.rows * kTileKeys * sizeof(float));
    add_product(work.query, work.head_size, work.keys, kTileKeys, work.scores, kTileKeys, work.rows, work.head_size,
                padded_count);
    for (int64_t row = 0; row < work.rows; row++) {
      update_softmax(work, row, smaller(first_visible + row / group - first_key, keys.count), padded_count);
    }
    prefetch(value, next_keys, call.head_size);
    load_values(value, keys, work);
    add_product(work.scores, kTileKeys, work.values, work.padded_size, work.sums, work.padded_size, work.rows,
                keys.count, work.padded_size);
    first_key += keys.count;
  }
}

template <class T>
void store_output(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, const Workspace& work) {
  const int64_t group = call.num_query_heads / call.num_kv_heads;
  const int64_t width = call.num_query_heads * call.head_size;
  T* first = static_cast<T*>(call.y) + tile.first_query * width + kv_head * group * call.head_size;
  for (int64_t row = 0; row < work.rows; row++) {
    T* to = first + row / group * width + row % group * call.head_size;
    const float* sums = work.sums + row * work.padded_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) {
      store_upto(to + d, load(sums + d) / work.denominators[row], work.head_size - d);
    }
  }
}

// A partial result: sums (rows, padded_size), maxima (rows), denominators (rows), as in Workspace.
struct Partials {
  float* first;
  int64_t floats_each;
  int64_t num_kv_heads;

  Workspace at(const Workspace& sizes, int64_t partial, int64_t kv_head) const {
    Workspace result = sizes;
    result.sums = first + (partial * num_kv_heads + kv_head) * floats_each;
    result.maxima = result.sums + sizes.rows * sizes.padded_size;
    result.denominators = result.maxima + sizes.rows;
    return result;
  }
};

// Adds the partial results of the tile's chunks, in their order, into that of the first.
Workspace merge_chunks(const Partials& partials, const AttentionTile& tile, int64_t kv_head, const Workspace& sizes) {
  const Workspace work = partials.at(sizes, tile.first_partial, kv_head);
  for (int64_t chunk = 1; chunk < tile.num_chunks; chunk++) {
    const Workspace other = partials.at(sizes, tile.first_partial + chunk, kv_head);
    for (int64_t row = 0; row < work.rows; row++) {
      const float new_maximum = fmaxf(work.maxima[row], other.maxima[row]);
      const float own_weight = expf(work.maxima[row] - new_maximum);
      const float other_weight = expf(other.maxima[row] - new_maximum);
      float* sums = work.sums + row * work.padded_size;
      const float* other_sums = other.sums + row * work.padded_size;
      for (int64_t d = 0; d < work.padded_size; d += kWidth) {
        store(sums + d, load(sums + d) * own_weight + load(other_sums + d) * other_weight);
      }
      work.denominators[row] = work.denominators[row] * own_weight + other.denominators[row] * other_weight;
      work.maxima[row] = new_maximum;
    }
  }
  return work;
}

// This thread's, for tiles of at most `rows` rows.
Workspace make_workspace(int64_t rows, int64_t head_size) {
  Workspace work{};
  work.rows = rows;
  work.head_size = head_size;
  work.padded_size = round_up(head_size);
  const int64_t padded_size = work.padded_size;
  const int64_t floats = rows * (head_size + kTileKeys + padded_size + 2) + kTileKeys * (head_size + padded_size);
  work.keys = static_cast<float*>(scratch(kScratchInputs, floats * sizeof(float)));
  work.values = work.keys + kTileKeys * head_size;
  work.query = work.values + kTileKeys * padded_size;
  work.scores = work.query + rows * head_size;
  work.sums = work.scores + rows * kTileKeys;
  work.maxima = work.sums + rows * padded_size;
  work.denominators = work.maxima + rows;
  return work;
}

// One item for one key/value head: a finished output, or a partial result when the tile has several chunks.
template <class T>
void run_item(const AttentionCall& call, const AttentionItem& item, int64_t kv_head, const Partials& partials,
              Workspace work) {
  const AttentionTile& tile = call.tiles[item.tile];
  if (tile.num_chunks == 1) {
    attend<T>(call, tile, kv_head, 0, tile.num_keys, work);
    store_output<T>(call, tile, kv_head, work);
    return;
  }
  work.rows = tile.num_queries * (call.num_query_heads / call.num_kv_heads);
  Workspace partial = partials.at(work, tile.first_partial + item.chunk, kv_head);
  const int64_t first_key = item.chunk * kChunkKeys;
  attend<T>(call, tile, kv_head, first_key, smaller(first_key + kChunkKeys, tile.num_keys), partial);
}

template <class T>
int run(const AttentionCall& call) {
  const int64_t heads = call.num_kv_heads, group = call.num_query_heads / heads;
  const int64_t rows = call.max_queries * group;
  Partials partials{nullptr, rows * (round_up(call.head_size) + 2), heads};
  const int64_t num_floats = call.num_partials * heads * partials.floats_each;
  partials.first = static_cast<float*>(scratch(kScratchSums, num_floats * sizeof(float)));

#pragma omp parallel num_threads(call.parallel ? mg_get_num_threads() : 1)
  {
    Workspace work = make_workspace(rows, call.head_size);
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < call.num_items * heads; i++) {
      run_item<T>(call, call.items[i / heads], i % heads, partials, work);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < (call.num_partials > 0 ? call.num_tiles * heads : 0); i++) {
      const AttentionTile& tile = call.tiles[i / heads];
      if (tile.num_chunks == 1) continue;
      work.rows = tile.num_queries * group;
      store_output<T>(call, tile, i % heads, merge_chunks(partials, tile, i % heads, work));
    }
  }
  return MG_OK;
}

}  // namespace

int attention(const AttentionCall& call) {
  return for_dtype(call.dtype, [&](auto type) { return run<decltype(type)>(call); });
}

}  // namespace mindgen::MG_ISA
