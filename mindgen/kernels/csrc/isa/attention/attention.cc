// Causal attention with an online softmax: one core for paged and for consecutive keys and values.
#include <atomic>
#include <memory>

#include "attention_tile.h"

namespace mindgen::MG_ISA {
namespace {

// The chunks of a call whose keys are shared out: the last thread done with a tile merges them.
class Partials {
  const AttentionCall& call_;
  const int64_t floats_;  // of one item
  float* memory_;
  std::unique_ptr<std::atomic<int64_t>[]> unfinished_;

 public:
  Partials(const AttentionCall& call, int64_t floats)
      : call_(call), floats_(floats), unfinished_(new std::atomic<int64_t>[call.num_tiles * call.num_kv_heads]) {
    memory_ = (float*)scratch(kScratchSums, call.num_items * call.num_kv_heads * floats * sizeof(float));
    for (int64_t i = 0; i < call.num_tiles * call.num_kv_heads; i++) {
      unfinished_[i] = call.tiles[i / call.num_kv_heads].num_chunks;
    }
  }
  float* at(int64_t item, int64_t kv_head) const { return memory_ + (item * call_.num_kv_heads + kv_head) * floats_; }
  bool finishes(int64_t tile, int64_t kv_head) const {
    return unfinished_[tile * call_.num_kv_heads + kv_head].fetch_sub(1, std::memory_order_acq_rel) == 1;
  }
};

template <class T, class Block>
void run_whole(const AttentionCall& call, const AttentionTile& tile, int64_t kv_head) {
  using Work = TileAttention<T, Block>;
  if (Work::kAllHeads && kv_head > 0) return;
  const Work work(call, tile, kv_head);
  float *result = work.own_softmax(0), *addition = work.own_softmax(1);
  work.attend(0, result);
  for (int64_t chunk = 1; chunk < tile.num_chunks; chunk++) {
    work.attend(chunk, addition);
    work.merge_softmaxes(result, addition);
  }
  work.store_output(result);
}

template <class T, class Block>
void run_chunk(const AttentionCall& call, const AttentionItem& item, int64_t kv_head, const Partials& partials) {
  using Work = TileAttention<T, Block>;
  if (Work::kAllHeads && kv_head > 0) return;
  const AttentionTile& tile = call.tiles[item.tile];
  const Work work(call, tile, kv_head);
  work.attend(item.chunk, partials.at(tile.first_item + item.chunk, kv_head));
  if (!partials.finishes(item.tile, kv_head)) return;
  float* result = partials.at(tile.first_item, kv_head);
  for (int64_t chunk = 1; chunk < tile.num_chunks; chunk++) {
    work.merge_softmaxes(result, partials.at(tile.first_item + chunk, kv_head));
  }
  work.store_output(result);
}

template <class T>
void run(const AttentionCall& call) {
  using Block = VectorBlock<typename ArithmeticOf<T>::type>;
  using Few = FewRows<typename ArithmeticOf<T>::type>;
  const int64_t heads = call.num_kv_heads, group = call.num_query_heads / heads;
  const auto has_few_rows = [&](const AttentionTile& tile) { return tile.num_queries * group <= kFewRows; };
  if (call.num_items == 0) {
    return parallel_for(call.num_tiles * heads, call.num_threads, [&](int64_t i) {
      const AttentionTile& tile = call.tiles[i / heads];
      has_few_rows(tile) ? run_whole<T, Few>(call, tile, i % heads) : run_whole<T, Block>(call, tile, i % heads);
    });
  }
  const int64_t rows = TileAttention<T, Block>::padded_rows(call.max_queries * group);
  const Partials partials(call, Softmax::num_floats(rows, ceil_divide(call.head_size, kWidth)));
  parallel_for(call.num_items * heads, call.num_threads, [&](int64_t i) {
    const AttentionItem& item = call.items[i / heads];
    has_few_rows(call.tiles[item.tile]) ? run_chunk<T, Few>(call, item, i % heads, partials)
                                        : run_chunk<T, Block>(call, item, i % heads, partials);
  });
}

}  // namespace

int attention(const AttentionCall& call) {
  for_dtype(call.dtype, [&](auto type) { run<decltype(type)>(call); });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
