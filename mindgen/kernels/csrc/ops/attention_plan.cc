#include "attention_plan.h"

#include "dispatch.h"
#include "parallel.h"

namespace mindgen {

int mg_attention(const AttentionCall& call) { return kernels().attention(call); }

void AttentionPlan::add_sequence(int64_t first_query, int64_t num_queries, int64_t num_keys, const int32_t* block_table,
                                 int64_t first_key_row) {
  for (int64_t query = 0; query < num_queries; query += queries_per_tile_) {
    const int64_t count = std::min(queries_per_tile_, num_queries - query);
    const int64_t visible = num_keys - num_queries + query + count;
    const int64_t num_chunks = (visible + kChunkKeys - 1) / kChunkKeys;
    tiles_.push_back({first_query + query, count, visible, block_table, first_key_row, num_chunks, 0});
    max_queries_ = std::max(max_queries_, count);
    max_chunks_ = std::max(max_chunks_, num_chunks);
    num_scores_ += count * visible;
  }
}

// The most work first: the threads finish about together.
void AttentionPlan::sort_tiles() {
  const auto more = [](const AttentionTile& a, const AttentionTile& b) {
    return a.num_queries * a.num_keys > b.num_queries * b.num_keys;
  };
  std::stable_sort(tiles_.begin(), tiles_.end(), more);
}

void AttentionPlan::share_out_keys() {
  for (size_t i = 0; i < tiles_.size(); i++) {
    tiles_[i].first_item = items_.size();
    for (int64_t chunk = 0; chunk < tiles_[i].num_chunks; chunk++) items_.push_back({(int64_t)i, chunk});
  }
}

int AttentionPlan::run(AttentionCall& call) {
  const int64_t min_parallel_work = 1 << 16;  // multiply-adds that outweigh waking the threads
  const int64_t work = num_scores_ * call.num_query_heads * call.head_size;
  const int64_t num_tasks = tiles_.size() * (max_queries_ > 1 ? call.num_kv_heads : 1);
  call.num_threads = work < min_parallel_work ? 1 : usable_threads();
  if (call.num_threads > 1) sort_tiles();
  if (call.num_threads > 1 && max_chunks_ > 1 && num_tasks < 8 * call.num_threads) share_out_keys();
  call.tiles = tiles_.data();
  call.num_tiles = tiles_.size();
  call.items = items_.data();
  call.num_items = items_.size();
  call.max_queries = max_queries_;
  return mg_attention(call);
}

}  // namespace mindgen
