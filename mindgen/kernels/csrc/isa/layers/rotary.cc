#include "dispatch.h"
#include "norm_row.h"
#include "scratch.h"
#include "shuffle.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

// Elements i and i + D/2 are a pair.
template <class T>
void rotate_halves(const T* x, const T* cos, const T* sin, T* y, int64_t D) {
  const int64_t half = D / 2;
  for (int64_t i = 0; i < half; i += kWidth) {
    const int64_t left = half - i;
    const floatv low = load_upto(x + i, left), high = load_upto(x + half + i, left);
    store_upto(y + i, low * load_upto(cos + i, left) - high * load_upto(sin + i, left), left);
    store_upto(y + half + i, high * load_upto(cos + half + i, left) + low * load_upto(sin + half + i, left), left);
  }
}

// Elements 2i and 2i + 1 are a pair.
template <class T>
void rotate_pairs(const T* x, const T* cos, const T* sin, T* y, int64_t D) {
  floatv sign;
  for (int lane = 0; lane < kWidth; lane++) sign[lane] = lane % 2 ? 1 : -1;
  for (int64_t i = 0; i < D; i += kWidth) {
    const int64_t left = D - i;
    const floatv value = load_upto(x + i, left);
    const floatv turned = swap_neighbours(value, Lanes()) * sign;
    store_upto(y + i, value * load_upto(cos + i, left) + turned * load_upto(sin + i, left), left);
  }
}

template <class T>
void rotate_heads(const T* x, const T* cos, const T* sin, T* y, int64_t num_heads, int64_t D, bool interleaved) {
  const auto rotate = interleaved ? rotate_pairs<T> : rotate_halves<T>;
  for (int64_t head = 0; head < num_heads; head++) rotate(x + head * D, cos, sin, y + head * D, D);
}

// Heads x -> y, normalized first where gamma is given.
template <class T>
void norm_and_rotate_heads(const mg_rotary_and_cache_call& call, const T* x, const T* gamma, int64_t token, T* y,
                           int64_t num_heads) {
  const int64_t D = call.D;
  const T *cos = (const T*)call.cos + token * D, *sin = (const T*)call.sin + token * D;
  if (gamma) {
    T* normed = (T*)scratch(kScratchInputs, num_heads * D * sizeof(T));
    for (int64_t head = 0; head < num_heads; head++) {
      normalize_row(x + head * D, gamma, normed + head * D, D, call.epsilon);
    }
    x = normed;
  }
  rotate_heads(x, cos, sin, y, num_heads, D, call.interleaved);
}

}  // namespace

int rotary_and_cache(const mg_rotary_and_cache_call* arguments) {
  const mg_rotary_and_cache_call& call = *arguments;
  const int64_t query_width = call.Hq * call.D, kv_width = call.Hkv * call.D;
  return for_dtype(call.dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(call.T, query_width + 2 * kv_width, [&](int64_t t) {
      norm_and_rotate_heads(call, (const T*)call.query + t * call.query_step, (const T*)call.query_gamma, t,
                            (T*)call.query_out + t * query_width, call.Hq);
      const int64_t slot = call.slot_mapping[t];
      if (slot == -1) return;
      norm_and_rotate_heads(call, (const T*)call.key + t * call.key_step, (const T*)call.key_gamma, t,
                            (T*)call.key_cache + slot * kv_width, call.Hkv);
      memcpy((T*)call.value_cache + slot * kv_width, (const T*)call.value + t * call.value_step, kv_width * sizeof(T));
    });
    return (int)MG_OK;
  });
}

// lengths is never NULL here: rows of cos and sin count from 0 in each sequence.
int apply_rotary(const void* query, const void* key, const void* cos, const void* sin, const int32_t* lengths,
                 void* query_out, void* key_out, int64_t, int64_t Hq, int64_t Hkv, int64_t D, int64_t,
                 int64_t B, bool interleaved, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    for (int64_t b = 0, first_token = 0; b < B; first_token += lengths[b++]) {
      for_rows(lengths[b], (Hq + Hkv) * D, [&](int64_t position) {
        const int64_t query_start = (first_token + position) * Hq * D, key_start = (first_token + position) * Hkv * D;
        const Element* cos_row = (const Element*)cos + position * D;
        const Element* sin_row = (const Element*)sin + position * D;
        rotate_heads((const Element*)query + query_start, cos_row, sin_row, (Element*)query_out + query_start, Hq, D,
                     interleaved);
        rotate_heads((const Element*)key + key_start, cos_row, sin_row, (Element*)key_out + key_start, Hkv, D,
                     interleaved);
      });
    }
    return (int)MG_OK;
  });
}

}  // namespace mindgen::MG_ISA
