// The attention functions of the C interface: the arguments are checked and the work is planned here.
#include "attention.h"
#include "dispatch.h"
#include "parallel.h"

#include <algorithm>
#include <vector>

using namespace mindgen;

namespace {

constexpr int64_t kTileRows = 512;  // (query, head of the group) pairs per tile, when a query has not more heads

struct Plan {
  std::vector<AttentionTile> tiles;
  std::vector<AttentionItem> items;
  int64_t queries_per_tile;
  int64_t max_queries = 0;
  int64_t max_chunks = 0;
  int64_t num_scores = 0;  // per query head

  explicit Plan(int64_t group) : queries_per_tile(std::max<int64_t>(1, kTileRows / group)) {}

  // The last num_queries of a sequence of num_keys tokens, whose keys the last two arguments locate.
  void add_sequence(int64_t first_query, int64_t num_queries, int64_t num_keys, const int32_t* block_table,
                    int64_t first_key_row) {
    for (int64_t query = 0; query < num_queries; query += queries_per_tile) {
      const int64_t count = std::min(queries_per_tile, num_queries - query);
      const int64_t visible = num_keys - num_queries + query + count;
      const int64_t num_chunks = (visible + kChunkKeys - 1) / kChunkKeys;
      tiles.push_back({first_query + query, count, visible, block_table, first_key_row, num_chunks, 0});
      max_queries = std::max(max_queries, count);
      max_chunks = std::max(max_chunks, num_chunks);
      num_scores += count * visible;
    }
  }

  // The most work first: the threads finish about together.
  void sort_tiles() {
    const auto more = [](const AttentionTile& a, const AttentionTile& b) {
      return a.num_queries * a.num_keys > b.num_queries * b.num_keys;
    };
    std::stable_sort(tiles.begin(), tiles.end(), more);
  }

  void share_out_keys() {
    for (size_t i = 0; i < tiles.size(); i++) {
      tiles[i].first_item = items.size();
      for (int64_t chunk = 0; chunk < tiles[i].num_chunks; chunk++) items.push_back({(int64_t)i, chunk});
    }
  }
};

int check_sizes(const char* name, int64_t T, int64_t B, int64_t Hq, int64_t Hkv, int64_t D, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (T < 0 || B < 0) return fail("%s: negative size: T %lld, B %lld", name, (long long)T, (long long)B);
  if (Hq < 1 || Hkv < 1 || D < 1 || Hq % Hkv != 0) {
    return fail("%s: %lld query heads, %lld key/value heads, head size %lld: these must be positive and the query "
                "heads a multiple of the key/value heads", name, (long long)Hq, (long long)Hkv, (long long)D);
  }
  return MG_OK;
}

int check_blocks(const int32_t* block_table, int64_t sequence, int64_t context, int64_t max_blocks,
                 int64_t num_blocks, int64_t block_size) {
  const int64_t needed = (context + block_size - 1) / block_size;
  if (needed > max_blocks) {
    return fail("paged_attention: sequence %lld has %lld tokens, more than the %lld blocks of its table hold",
                (long long)sequence, (long long)context, (long long)max_blocks);
  }
  for (int64_t i = 0; i < needed; i++) {
    if (block_table[i] < 0 || block_table[i] >= num_blocks) {
      return fail("paged_attention: block %lld of sequence %lld is %d, but the cache has %lld blocks", (long long)i,
                  (long long)sequence, (int)block_table[i], (long long)num_blocks);
    }
  }
  return MG_OK;
}

int run(AttentionCall& call, Plan& plan) {
  const int64_t min_parallel_work = 1 << 16;  // multiply-adds that outweigh waking the threads
  const int64_t work = plan.num_scores * call.num_query_heads * call.head_size;
  const int64_t num_tasks = plan.tiles.size() * (plan.max_queries > 1 ? call.num_kv_heads : 1);
  call.num_threads = work < min_parallel_work ? 1 : usable_threads();
  if (call.num_threads > 1) plan.sort_tiles();
  if (call.num_threads > 1 && plan.max_chunks > 1 && num_tasks < 8 * call.num_threads) plan.share_out_keys();
  call.tiles = plan.tiles.data();
  call.num_tiles = plan.tiles.size();
  call.items = plan.items.data();
  call.num_items = plan.items.size();
  call.max_queries = plan.max_queries;
  return mg_attention(call);
}

}  // namespace

int mindgen::mg_attention(const AttentionCall& call) { return kernels().attention(call); }

extern "C" {

int mg_paged_attention(const void* query, const void* key_cache, const void* value_cache,
                       const int32_t* block_tables, const int32_t* context_lens, const int32_t* query_lens, void* y,
                       int64_t T, int64_t B, int64_t max_blocks, int64_t num_blocks, int64_t block_size, int64_t Hq,
                       int64_t Hkv, int64_t D, float scale, mg_dtype dtype) {
  if (check_sizes("paged_attention", T, B, Hq, Hkv, D, dtype) != MG_OK) return MG_ERROR;
  if (max_blocks < 0 || num_blocks < 0 || block_size < 1) {
    return fail("paged_attention: max_blocks %lld, num_blocks %lld, block_size %lld", (long long)max_blocks,
                (long long)num_blocks, (long long)block_size);
  }
  if (B > 0 && (!query || !key_cache || !value_cache || !block_tables || !context_lens || !y)) {
    return fail("paged_attention: a buffer is NULL");
  }
  Plan plan(Hq / Hkv);
  int64_t first_query = 0;
  for (int64_t b = 0; b < B; b++) {
    const int64_t context = context_lens[b], queries = query_lens ? query_lens[b] : 1;
    const int32_t* block_table = block_tables + b * max_blocks;
    if (queries < 0 || queries > context) {
      return fail("paged_attention: sequence %lld has %lld queries but %lld tokens", (long long)b, (long long)queries,
                  (long long)context);
    }
    if (queries > T - first_query) {
      return fail("paged_attention: query_lens sum to more than T, %lld", (long long)T);
    }
    if (check_blocks(block_table, b, context, max_blocks, num_blocks, block_size) != MG_OK) return MG_ERROR;
    plan.add_sequence(first_query, queries, context, block_table, 0);
    first_query += queries;
  }
  if (first_query != T) {
    return fail("paged_attention: query_lens sum to %lld, not T, %lld", (long long)first_query, (long long)T);
  }
  if (T == 0) return MG_OK;
  AttentionCall call{};
  call.query = query, call.key = key_cache, call.value = value_cache, call.y = y;
  call.num_query_heads = Hq, call.num_kv_heads = Hkv, call.head_size = D, call.block_size = block_size;
  call.scale = scale, call.dtype = dtype;
  return run(call, plan);
}

int mg_flash_attention(const void* query, const void* key, const void* value, const int64_t* query_ends,
                       const int64_t* kv_ends, void* y, int64_t T, int64_t Tkv, int64_t B, int64_t Hq, int64_t Hkv,
                       int64_t D, float scale, mg_dtype dtype) {
  if (check_sizes("flash_attention", T, B, Hq, Hkv, D, dtype) != MG_OK) return MG_ERROR;
  if (B > 0 && (!query_ends || !kv_ends)) return fail("flash_attention: query_ends or kv_ends is NULL");
  if (T > 0 && (!query || !key || !value || !y)) return fail("flash_attention: query, key, value or y is NULL");
  Plan plan(Hq / Hkv);
  int64_t first_query = 0, first_key = 0;
  for (int64_t b = 0; b < B; b++) {
    const int64_t queries = query_ends[b] - first_query, keys = kv_ends[b] - first_key;
    if (queries < 0 || keys < queries || query_ends[b] > T || kv_ends[b] > Tkv) {
      return fail("flash_attention: sequence %lld has queries %lld..%lld of %lld and keys %lld..%lld of %lld",
                  (long long)b, (long long)first_query, (long long)query_ends[b], (long long)T, (long long)first_key,
                  (long long)kv_ends[b], (long long)Tkv);
    }
    plan.add_sequence(first_query, queries, keys, nullptr, first_key);
    first_query = query_ends[b];
    first_key = kv_ends[b];
  }
  if (first_query != T) {
    return fail("flash_attention: the last of query_ends is %lld, not T, %lld", (long long)first_query, (long long)T);
  }
  if (T == 0) return MG_OK;
  AttentionCall call{};
  call.query = query, call.key = key, call.value = value, call.y = y;
  call.num_query_heads = Hq, call.num_kv_heads = Hkv, call.head_size = D, call.block_size = Tkv;
  call.scale = scale, call.dtype = dtype;
  return run(call, plan);
}

}  // extern "C"
