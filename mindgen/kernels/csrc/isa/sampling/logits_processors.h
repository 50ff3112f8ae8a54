// What changes logits before a token is chosen among them, in vLLM's order: masks, bans, biases, penalties.
#pragma once
#include "row_passes.h"
#include "scratch.h"

namespace mindgen::MG_ISA {

// y = x - offset, or -inf where a mask has no bit. Masks may be NULL.
static void copy_allowed(const float* x, float* y, int64_t V, float offset, const uint32_t* mask1,
                         const uint32_t* mask2) {
  const intv lane_bits = (intv{} + 1) << lane_numbers();
  for (int64_t i = 0; i < V; i += kWidth) {
    floatv value = load_logits(x + i, V - i) - offset;
    if (mask1 || mask2) {
      const uint32_t word = (mask1 ? mask1[i / 32] : ~0u) & (mask2 ? mask2[i / 32] : ~0u);
      const intv bits = (intv{} + (int32_t)(word >> i % 32)) & lane_bits;
      value = select(bits != 0, value, broadcast(-INFINITY));
    }
    store_upto(y + i, value, V - i);
  }
}

struct TokenCount {
  int32_t token, count;
};

// How often each token of the prompt and the output occurs in the output, in a hash table.
class TokenCounts {
 public:
  explicit TokenCounts(int64_t num_tokens) {
    int bits = 4;
    while ((1ll << bits) < 2 * num_tokens) bits++;
    shift_ = 32 - bits;
    size_ = 1ll << bits;
    table_ = (TokenCount*)scratch(kScratchHistory, size_ * sizeof(TokenCount));
    memset(table_, -1, size_ * sizeof(TokenCount));
  }

  void add(int32_t token, int32_t count) {
    int64_t i = (uint32_t)token * 2654435769u >> shift_;
    while (table_[i].token != token && table_[i].token >= 0) i = (i + 1) & (size_ - 1);
    if (table_[i].token < 0) table_[i] = {token, 0};
    table_[i].count += count;
  }

  template <class Body>
  void for_each(const Body& body) const {
    for (int64_t i = 0; i < size_; i++) {
      if (table_[i].token >= 0) body(table_[i]);
    }
  }

 private:
  TokenCount* table_;
  int64_t size_;
  int shift_;
};

static bool has_penalties(const mg_sampling_row& row) {
  return row.repetition_penalty != 1 || row.presence_penalty != 0 || row.frequency_penalty != 0;
}

static void penalize(float* x, const mg_sampling_row& row) {
  const int64_t num_prompt = row.repetition_penalty != 1 ? row.num_prompt : 0;
  TokenCounts counts(num_prompt + row.num_output);
  for (int64_t i = 0; i < num_prompt; i++) counts.add(row.prompt[i], 0);
  for (int64_t i = 0; i < row.num_output; i++) counts.add(row.output[i], 1);
  counts.for_each([&](TokenCount seen) {
    float& value = x[seen.token];
    value = value > 0 ? value / row.repetition_penalty : value * row.repetition_penalty;
    if (seen.count > 0) value -= row.frequency_penalty * (float)seen.count + row.presence_penalty;
  });
}

static inline bool has_processors(const mg_sampling_row& row) {
  return row.allowed || row.grammar || row.num_banned > 0 || row.num_biases > 0 || has_penalties(row);
}

// y (V) = the processed x - offset.
static void process_logits(const float* x, float* y, int64_t V, float offset, const mg_sampling_row& row) {
  copy_allowed(x, y, V, offset, row.allowed, row.grammar);
  for (int64_t i = 0; i < row.num_banned; i++) y[row.banned[i]] = -INFINITY;
  for (int64_t i = 0; i < row.num_biases; i++) y[row.bias_tokens[i]] += row.biases[i];
  if (has_penalties(row)) penalize(y, row);
}

}  // namespace mindgen::MG_ISA
