// The work of one attention call, as planned once and then run by the kernel of any instruction set.
#pragma once
#include <stdint.h>

#include "mindgen_kernels.h"

namespace mindgen {

// Keys per chunk. Fixed, so that a result depends neither on the threads nor on the rest of the batch.
constexpr int64_t kChunkKeys = 512;

// Neighbouring queries of one sequence, the last of which sees num_keys keys, the one before it one less, and so on.
struct AttentionTile {
  int64_t first_query;  // row of query and y
  int64_t num_queries;
  int64_t num_keys;
  const int32_t* block_table;  // of the sequence; NULL: its keys are consecutive rows
  int64_t first_key_row;       // without a block table
  int64_t num_chunks;          // of keys; each has its own softmax, and these are merged in order
  int64_t first_item;
};

// One chunk of a tile, for one thread.
struct AttentionItem {
  int64_t tile;
  int64_t chunk;
};

struct AttentionCall {
  const void* query;
  const void* key;
  const void* value;
  void* y;
  int64_t num_query_heads;
  int64_t num_kv_heads;
  int64_t head_size;
  int64_t block_size;
  float scale;
  mg_dtype dtype;
  const AttentionTile* tiles;
  int64_t num_tiles;
  const AttentionItem* items;  // when the keys of a tile are shared out
  int64_t num_items;           // 0: every tile is for one thread
  int64_t max_queries;         // in a tile
  int num_threads;
};

// Runs it with the kernel of the instruction set in use.
int mg_attention(const AttentionCall& call);

}  // namespace mindgen
