#include "dispatch.h"
#include "logits_processors.h"
#include "sampling_filters.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

mg_sampling_status status_of(const Peak& peak) {
  if (peak.value != peak.value || peak.value == INFINITY) return MG_NOT_FINITE;
  return peak.value == -INFINITY ? MG_NOTHING_ALLOWED : MG_SAMPLED;
}

float log_sum_exp(const float* x, int64_t V, float peak) {
  const Weights weights{-INFINITY, peak, 1};
  return peak + (float)log(sum_weights(V, [&](int64_t i) { return weights(load_logits(x + i, V - i)); }, nullptr));
}

// The likeliest `wanted` tokens, best first; what a row lacks is token -1. peak.maxima: those of its blocks.
void write_top(const float* x, int64_t V, RowMemory& memory, int64_t wanted, float offset, int32_t* tokens,
               float* values) {
  float* keys = memory.list.keys;
  int32_t* places = memory.list.places;
  const int64_t found = collect_at_least(x, V, lower_bound(memory.maxima, num_blocks(V), wanted), keys, places);
  int32_t* order = (int32_t*)memory.list.weights;
  for (int64_t i = 0; i < found; i++) order[i] = (int32_t)i;
  std::partial_sort(order, order + least(wanted, found), order + found, [&](int32_t a, int32_t b) {
    return keys[a] != keys[b] ? keys[a] > keys[b] : a < b;
  });
  for (int64_t i = 0; i < wanted; i++) {
    tokens[i] = i < found ? places[order[i]] : -1;
    values[i] = i < found ? keys[order[i]] - offset : -INFINITY;
  }
}

// Draws a token, or takes the one that is given and tells how likely it was to be drawn.
mg_sampling_status choose(const float* logits, int64_t V, const mg_sampling_row& row, mg_sampled_token& sampled) {
  const bool is_greedy = row.temperature == 0;
  const RowMemory memory(V);
  const float* x = logits;
  if (has_processors(row)) {
    process_logits(logits, memory.x, V, 0, row);
    x = memory.x;
  }
  const Peak peak = find_peak(x, V, is_greedy ? nullptr : memory.maxima);
  const mg_sampling_status status = status_of(peak);
  const bool is_given = row.mode == MG_SCORE;
  if (!is_given) sampled.token = (int32_t)peak.place;
  if (is_greedy && row.wants_processed) sampled.processed_logprob = sampled.token == peak.place ? 0 : -INFINITY;
  if (is_greedy || status != MG_SAMPLED) return status;
  Candidates candidates(memory, x, V, peak.value, row.temperature);
  candidates.filter(row);
  if (is_given) {
    const int64_t place = candidates.place_of(sampled.token);
    const bool is_possible = place >= 0 && candidates.may_draw(place, row.top_p);
    sampled.processed_logprob = is_possible ? candidates.logprob(place, row.top_p) : -INFINITY;
    return MG_SAMPLED;
  }
  const int64_t place = candidates.draw(row);
  sampled.token = candidates.token_at(place);
  if (row.wants_processed) sampled.processed_logprob = candidates.logprob(place, row.top_p);
  return MG_SAMPLED;
}

mg_sampling_status write_logprobs(const float* logits, int64_t V, const mg_sampling_row& row,
                                  mg_sampled_token& sampled, int32_t* top_tokens, float* top_logprobs) {
  RowMemory memory(V);
  const Peak peak = find_peak(logits, V, memory.maxima);
  if (status_of(peak) != MG_SAMPLED) return status_of(peak);
  const float normalizer = log_sum_exp(logits, V, peak.value);
  sampled.logprob = logits[sampled.token] - normalizer;
  sampled.rank = (int32_t)count_at_least(logits, V, logits[sampled.token]);
  if (row.num_logprobs > 0) write_top(logits, V, memory, row.num_logprobs, normalizer, top_tokens, top_logprobs);
  return MG_SAMPLED;
}

// The best continuations of a beam, by their processed log-probabilities.
mg_sampling_status write_continuations(const float* logits, int64_t V, const mg_sampling_row& row,
                                       mg_sampled_token& sampled, int32_t* top_tokens, float* top_logprobs) {
  RowMemory memory(V);
  Peak peak = find_peak(logits, V, nullptr);
  if (status_of(peak) != MG_SAMPLED) return status_of(peak);
  process_logits(logits, memory.x, V, log_sum_exp(logits, V, peak.value), row);
  peak = find_peak(memory.x, V, memory.maxima);
  if (status_of(peak) != MG_SAMPLED) return status_of(peak);
  write_top(memory.x, V, memory, row.num_logprobs, 0, top_tokens, top_logprobs);
  sampled = {MG_SAMPLED, top_tokens[0], 1, top_logprobs[0], NAN};
  return MG_SAMPLED;
}

}  // namespace

int sample(const float* logits, const mg_sampling_row* rows, mg_sampled_token* sampled, int32_t* top_tokens,
           float* top_logprobs, int64_t max_logprobs, int64_t B, int64_t V) {
  for_rows(B, V, [&](int64_t b) {
    const mg_sampling_row& row = rows[b];
    const float* row_logits = logits + b * V;
    int32_t* row_tokens = top_tokens + b * max_logprobs;
    float* row_logprobs = top_logprobs + b * max_logprobs;
    mg_sampled_token& result = sampled[b];
    result = {MG_SAMPLED, row.token, 0, NAN, NAN};
    if (row.mode == MG_BEAM) {
      result.status = write_continuations(row_logits, V, row, result, row_tokens, row_logprobs);
      return;
    }
    if (row.mode == MG_SAMPLE || row.wants_processed) result.status = choose(row_logits, V, row, result);
    if (result.status == MG_SAMPLED && row.num_logprobs >= 0) {
      result.status = write_logprobs(row_logits, V, row, result, row_tokens, row_logprobs);
    }
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
