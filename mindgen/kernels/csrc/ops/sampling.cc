// Sampling of the C interface: the arguments are checked here.
#include <math.h>

#include "dispatch.h"
#include "philox.h"

using namespace mindgen;

namespace {

bool are_tokens(const int32_t* tokens, int64_t count, int64_t V) {
  for (int64_t i = 0; i < count; i++) {
    if (tokens[i] < 0 || tokens[i] >= V) return false;
  }
  return true;
}

int check_row(const mg_sampling_row& row, int64_t b, int64_t max_logprobs, int64_t V) {
  const long long place = b;
  if (row.num_banned < 0 || row.num_biases < 0 || row.num_prompt < 0 || row.num_output < 0) {
    return fail("sample: row %lld has a negative count", place);
  }
  if ((row.num_banned > 0 && !row.banned) || (row.num_biases > 0 && (!row.bias_tokens || !row.biases)) ||
      (row.num_prompt > 0 && !row.prompt) || (row.num_output > 0 && !row.output)) {
    return fail("sample: a buffer of row %lld is NULL", place);
  }
  if (!are_tokens(row.banned, row.num_banned, V) || !are_tokens(row.bias_tokens, row.num_biases, V) ||
      !are_tokens(row.prompt, row.num_prompt, V) || !are_tokens(row.output, row.num_output, V) ||
      (row.mode == MG_SCORE && !are_tokens(&row.token, 1, V))) {
    return fail("sample: row %lld names a token outside the vocabulary of %lld", place, (long long)V);
  }
  if (row.mode < MG_SAMPLE || row.mode > MG_BEAM || row.num_logprobs > max_logprobs ||
      (row.mode == MG_BEAM && row.num_logprobs < 1)) {
    return fail("sample: row %lld has mode %d and %d logprobs, of at most %lld", place, (int)row.mode,
                (int)row.num_logprobs, (long long)max_logprobs);
  }
  if (row.mode == MG_SAMPLE && !((row.temperature == 0 || (row.temperature >= 1e-5f && row.temperature < INFINITY)) && row.top_p > 0 && row.typical_p > 0 && row.min_p >= 0 &&
                                 row.min_p <= 1 && row.top_k >= 0 && row.repetition_penalty > 0)) {
    return fail("sample: row %lld has a parameter out of range", place);
  }
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_sample(const float* logits, const mg_sampling_row* rows, mg_sampled_token* sampled, int32_t* top_tokens,
              float* top_logprobs, int64_t max_logprobs, int64_t B, int64_t V) {
  if (B < 0 || V < 1 || V > INT32_MAX || max_logprobs < 0 || max_logprobs > V) {
    return fail("sample: %lld rows of %lld logits, %lld logprobs", (long long)B, (long long)V, (long long)max_logprobs);
  }
  if (B == 0) return MG_OK;
  if (!logits || !rows || !sampled || (max_logprobs > 0 && (!top_tokens || !top_logprobs))) {
    return fail("sample: logits, rows, sampled or the top tokens are NULL");
  }
  for (int64_t b = 0; b < B; b++) {
    if (check_row(rows[b], b, max_logprobs, V) != MG_OK) return MG_ERROR;
  }
  return kernels().sample(logits, rows, sampled, top_tokens, top_logprobs, max_logprobs, B, V);
}

int mg_philox_uniforms(uint64_t seed, uint64_t position, double* uniforms, int64_t count) {
  if (count < 0 || (count > 0 && !uniforms)) return fail("philox_uniforms: %lld uniforms", (long long)count);
  for (int64_t i = 0; i < count; i++) uniforms[i] = philox_uniform(seed, position + (uint64_t)i);
  return MG_OK;
}

}  // extern "C"
