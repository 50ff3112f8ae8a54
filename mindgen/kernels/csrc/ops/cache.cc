// Keys and values on their way into the paged cache.
#include "bytes.h"
#include "op.h"

using namespace mindgen;

extern "C" {

int mg_reshape_and_cache(const void* key, const void* value, void* key_cache, void* value_cache,
                         const int32_t* slot_mapping, int64_t T, int64_t num_slots, int64_t width) {
  if (T < 0 || num_slots < 0 || width < 0) {
    return fail("reshape_and_cache: negative size: T %lld, num_slots %lld, width %lld", (long long)T,
                (long long)num_slots, (long long)width);
  }
  if (T == 0 || width == 0) return MG_OK;
  if (!key || !value || !key_cache || !value_cache || !slot_mapping) {
    return fail("reshape_and_cache: a buffer is NULL");
  }
  if (check_slots("reshape_and_cache", slot_mapping, T, num_slots) != MG_OK) return MG_ERROR;
  for_rows(T, 2 * width / kElementBytes, [&](int64_t t) {
    if (slot_mapping[t] == -1) return;
    const int64_t from = t * width, to = slot_mapping[t] * width;
    memcpy(bytes_at(key_cache, to), bytes_at(key, from), width);
    memcpy(bytes_at(value_cache, to), bytes_at(value, from), width);
  });
  return MG_OK;
}

}  // extern "C"

namespace {

int run_reshape_and_cache(const OpCall& call) {
  const Tensor &key = call.input(0), &value = call.input(1), &key_cache = call.input(2), &value_cache = call.input(3);
  require(key_cache.shape.ndim == 4, "caches must be (blocks, block, Hkv, D)");
  const int64_t T = call.input(4).elements(), width = key_cache.shape.elements(2);
  common_dtype({key, value, key_cache, value_cache});
  require(key.elements() == T * width && value.elements() == T * width,
          "key and value must have a row of the cache's width for each slot");
  require(value_cache.elements() == key_cache.elements(), "the two caches must have one shape");
  return mg_reshape_and_cache(key.data, value.data, key_cache.data, value_cache.data, call.int32s(4), T,
                              key_cache.shape.elements(0, 2), width * item_size(key.dtype));
}

Cost cache_cost(const OpCall& call) { return {2 * (call.input(0).bytes() + call.input(1).bytes()), 0}; }

}  // namespace

// Nobody reads the output.
MINDGEN_OP(ReshapeAndCache, .signature = "key, value, key_cache!, value_cache!, slot_mapping -> written",
           .infer = infer_like_first, .run = run_reshape_and_cache, .unwritten_outputs = 1, .cost = cache_cost)
MINDGEN_CUSTOM_OP(ReshapeAndCacheFloat32, .signature = "key, value, key_cache!, value_cache!, slot_mapping -> written",
                  .infer = infer_like_first, .run = run_reshape_and_cache, .unwritten_outputs = 1, .cost = cache_cost)
