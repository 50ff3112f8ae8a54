// Causal attention with an online softmax: one core for paged and for consecutive keys and values.
#include "attention_tile.h"
#include "dispatch.h"
#include "parallel.h"
#include "small_product.h"

namespace mindgen::MG_ISA {
namespace {

// The softmax of the tile's queries, which work holds, over one chunk of its keys.
template <class T>
void attend(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, int64_t chunk, const Workspace& work,
            Softmax& softmax) {
  const int64_t group = call.num_query_heads / call.num_kv_heads;
  const int64_t first_visible = tile.num_keys - tile.num_queries + 1;
  const T* key = static_cast<const T*>(call.key) + kv_head * call.head_size;
  const T* value = static_cast<const T*>(call.value) + kv_head * call.head_size;
  int64_t first_key = chunk * kChunkKeys;
  const int64_t end_key = tile.num_chunks == 1 ? tile.num_keys : smaller(first_key + kChunkKeys, tile.num_keys);

  clear(softmax, work);
  KeyOffsets keys, next_keys;
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
      const int64_t visible = smaller(first_visible + row / group - first_key, keys.count);
      add_scores(softmax, work, row, visible, padded_count);
    }
    prefetch(value, next_keys, call.head_size);
    load_values(value, keys, work);
    add_product(work.scores, kTileKeys, work.values, work.padded_size, softmax.sums, work.padded_size, work.rows,
                keys.count, work.padded_size);
    first_key += keys.count;
  }
}

template <class T>
void store_output(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, const Workspace& work,
                  const Softmax& softmax) {
  const int64_t group = call.num_query_heads / call.num_kv_heads;
  const int64_t width = call.num_query_heads * call.head_size;
  T* first = static_cast<T*>(call.y) + tile.first_query * width + kv_head * group * call.head_size;
  for (int64_t row = 0; row < work.rows; row++) {
    T* to = first + row / group * width + row % group * call.head_size;
    const float* sums = softmax.sums + row * work.padded_size;
    for (int64_t d = 0; d < work.head_size; d += kWidth) {
      store_upto(to + d, load(sums + d) / softmax.denominators[row], work.head_size - d);
    }
  }
}

// The result of each item and key/value head of a split call.
struct Partials {
  float* memory;
  int64_t rows;  // of the largest tile
  int64_t padded_size;
  int64_t num_kv_heads;

  Softmax at(int64_t item, int64_t kv_head) const {
    const int64_t index = item * num_kv_heads + kv_head;
    return Softmax::at(memory + index * Softmax::num_floats(rows, padded_size), rows, padded_size);
  }
};

template <class T>
void run_item(const AttentionCall& call, int64_t index, int64_t kv_head, const Partials& partials, Workspace& work) {
  const AttentionItem& item = call.items[index];
  const AttentionTile& tile = call.tiles[item.tile];
  Softmax result = call.split ? partials.at(index, kv_head) : work.result;
  load_queries<T>(call, tile, kv_head, work);
  attend<T>(call, tile, kv_head, item.first_chunk, work, result);
  for (int64_t chunk = item.first_chunk + 1; chunk < item.end_chunk; chunk++) {
    attend<T>(call, tile, kv_head, chunk, work, work.addition);
    merge(result, work.addition, work);
  }
  if (!call.split) store_output<T>(call, tile, kv_head, work, result);
}

template <class T>
void merge_items(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head, const Partials& partials,
                 Workspace& work) {
  work.rows = tile.num_queries * (call.num_query_heads / call.num_kv_heads);
  Softmax result = partials.at(tile.first_item, kv_head);
  for (int64_t chunk = 1; chunk < tile.num_chunks; chunk++) {
    merge(result, partials.at(tile.first_item + chunk, kv_head), work);
  }
  store_output<T>(call, tile, kv_head, work, result);
}

template <class T>
int run(const AttentionCall& call) {
  const int64_t heads = call.num_kv_heads;
  const int64_t rows = call.max_queries * (call.num_query_heads / heads);
  Partials partials{nullptr, rows, round_up(call.head_size), heads};
  if (call.split) {
    const int64_t floats = call.num_items * heads * Softmax::num_floats(rows, partials.padded_size);
    partials.memory = static_cast<float*>(scratch(kScratchSums, floats * sizeof(float)));
  }
  parallel_for(call.num_items * heads, call.num_threads, [&](int64_t i) {
    Workspace work = make_workspace(rows, call.head_size);
    run_item<T>(call, i / heads, i % heads, partials, work);
  });
  if (!call.split) return MG_OK;
  parallel_for(call.num_tiles * heads, call.num_threads, [&](int64_t i) {
    Workspace work = make_workspace(rows, call.head_size);
    merge_items<T>(call, call.tiles[i / heads], i % heads, partials, work);
  });
  return MG_OK;
}

}  // namespace

int attention(const AttentionCall& call) {
  return for_dtype(call.dtype, [&](auto type) { return run<decltype(type)>(call); });
}

}  // namespace mindgen::MG_ISA
