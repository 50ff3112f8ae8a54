// How the work of an attention call is cut up.
#pragma once
#include <algorithm>
#include <vector>

#include "attention.h"

namespace mindgen {

class AttentionPlan {
 public:
  // group: query heads to a head of keys.
  explicit AttentionPlan(int64_t group) : queries_per_tile_(std::max<int64_t>(1, kTileRows / group)) {}

  // The last num_queries of a sequence of num_keys tokens, whose keys the last two arguments locate.
  void add_sequence(int64_t first_query, int64_t num_queries, int64_t num_keys, const int32_t* block_table,
                    int64_t first_key_row);
  // Completes the call and makes it.
  int run(AttentionCall& call);

 private:
  static constexpr int64_t kTileRows = 512;  // (query, head of the group) pairs per tile, if a query has not more heads

  void sort_tiles();
  void share_out_keys();

  std::vector<AttentionTile> tiles_;
  std::vector<AttentionItem> items_;
  int64_t queries_per_tile_;
  int64_t max_queries_ = 0;
  int64_t max_chunks_ = 0;
  int64_t num_scores_ = 0;  // per query head
};

}  // namespace mindgen
