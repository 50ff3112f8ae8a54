// Attention over a paged cache, and within whole prompts: arguments are checked here.
#include "attention.h"
#include "attention_plan.h"
#include "op.h"
#include "dispatch.h"

using namespace mindgen;

namespace {

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

}  // namespace

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
  AttentionPlan plan(Hq / Hkv);
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
  return plan.run(call);
}

int mg_flash_attention(const void* query, const void* key, const void* value, const int64_t* query_ends,
                       const int64_t* kv_ends, void* y, int64_t T, int64_t Tkv, int64_t B, int64_t Hq, int64_t Hkv,
                       int64_t D, float scale, mg_dtype dtype) {
  if (check_sizes("flash_attention", T, B, Hq, Hkv, D, dtype) != MG_OK) return MG_ERROR;
  if (B > 0 && (!query_ends || !kv_ends)) return fail("flash_attention: query_ends or kv_ends is NULL");
  if (T > 0 && (!query || !key || !value || !y)) return fail("flash_attention: query, key, value or y is NULL");
  AttentionPlan plan(Hq / Hkv);
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
  return plan.run(call);
}

}  // extern "C"

namespace {

struct QueryLens {
  const int32_t* lens;  // NULL: 1 each
  int64_t elements;
};

QueryLens query_lens(const OpCall& call, int i) {
  return call.absent(i) ? QueryLens{nullptr, 0} : QueryLens{call.int32s(i), call.input(i).elements()};
}

// query, key_cache, value_cache, block_tables, context_lens, ... -> y
int paged_attention(const OpCall& call, const QueryLens& lens, int64_t Hq, float scale) {
  const Tensor &query = call.input(0), &key_cache = call.input(1), &value_cache = call.input(2);
  const Tensor &block_tables = call.input(3), &context_lens = call.input(4);
  require(key_cache.shape.ndim == 4 && block_tables.shape.ndim == 2,
          "caches must be (blocks, block, Hkv, D), block_tables (B, n)");
  require(key_cache.elements() == value_cache.elements(), "the two caches must have one shape");
  const int64_t Hkv = key_cache.shape.dim(2), D = key_cache.shape.dim(3), B = block_tables.shape.dim(0);
  require(context_lens.elements() == B && (!lens.lens || lens.elements == B),
          "context_lens and q_seq_lens must have an entry for each row of block_tables");
  require(query.shape.last() == Hq * D, "query's rows must be head_num heads of the caches' size");
  return mg_paged_attention(query.data, key_cache.data, value_cache.data, call.int32s(3), call.int32s(4), lens.lens,
                            call.output(0).data, query.shape.rows(), B, block_tables.shape.dim(1),
                            key_cache.shape.dim(0), key_cache.shape.dim(1), Hq, Hkv, D, scale,
                            common_float({query, key_cache, value_cache}));
}

// attn_mask is the causal mask, which the lengths already tell.
int run_paged_attention(const OpCall& call) {
  require(call.scalar<int64_t>(13) == 0, "a quantized KV cache is not served");
  require(call.scalar<int64_t>(15) == 0, "mla_v_dim is not served");
  const Shape& cache = call.input(1).shape;
  require(cache.ndim != 4 || call.scalar<int64_t>(12) == cache.dim(2),
          "kv_head_num must be the caches' number of heads");
  return paged_attention(call, query_lens(call, 8), call.scalar<int64_t>(10), call.scalar<float>(11));
}

int run_paged_attention_float32(const OpCall& call) {
  const int64_t D = call.input(1).shape.last(), Hq = D > 0 ? call.input(0).shape.last() / D : 0;
  return paged_attention(call, query_lens(call, 5), Hq, *static_cast<const float*>(call.input(6).data));
}

void infer_flash_attention(const OpCall& call) {
  for (int output = 0; output < 3; output++) call.output(output).set_shape(Shape{0});
  call.output(3).set_shape(call.input(0).shape);
}

// attn_mask is the causal mask, which the lengths already tell.
int run_flash_attention(const OpCall& call) {
  constexpr int64_t layout_th = 5;
  const Tensor &query = call.input(0), &key = call.input(1), &value = call.input(2);
  require(call.scalar<int64_t>(16) == layout_th, "input_layout must be TH");
  require(!call.absent(8) && !call.absent(9), "TH needs actual_seq_qlen and actual_seq_kvlen");
  require(call.input(8).elements() == call.input(9).elements(),
          "actual_seq_qlen and actual_seq_kvlen must have one length");
  const int64_t Hq = call.scalar<int64_t>(10), D = Hq > 0 ? query.shape.last() / Hq : 0;
  require(D > 0 && D * Hq == query.shape.last() && key.shape.last() % D == 0,
          "rows must be whole heads: check head_num");
  require(key.elements() == value.elements(), "key and value must have one shape");
  return mg_flash_attention(query.data, key.data, value.data, call.int64s(8), call.int64s(9), call.output(3).data,
                            query.shape.rows(), key.shape.rows(), call.input(8).elements(), Hq, key.shape.last() / D,
                            D, call.scalar<float>(12), common_float({query, key, value}));
}

// Of sequences that have so many queries and keys.
class AttentionCost {
 public:
  void add_sequence(int64_t queries, int64_t keys) {
    keys_ += keys;
    scores_ += queries * keys - queries * (queries - 1) / 2;
  }
  // width: elements of a key in all heads.
  Cost of(const Tensor& query, int64_t width) const {
    return {2 * query.bytes() + 2 * keys_ * width * item_size(query.dtype), 4 * scores_ * query.shape.last()};
  }

 private:
  int64_t keys_ = 0, scores_ = 0;
};

Cost paged_attention_cost(const OpCall& call, int lens_input) {
  const QueryLens lens = query_lens(call, lens_input);
  AttentionCost cost;
  for (int64_t b = 0; b < call.input(4).elements(); b++) {
    cost.add_sequence(lens.lens ? lens.lens[b] : 1, call.int32s(4)[b]);
  }
  return cost.of(call.input(0), call.input(1).shape.elements(2));
}

Cost flash_attention_cost(const OpCall& call) {
  const int64_t *query_ends = call.int64s(8), *key_ends = call.int64s(9);
  AttentionCost cost;
  for (int64_t b = 0; b < call.input(8).elements(); b++) {
    cost.add_sequence(query_ends[b] - (b > 0 ? query_ends[b - 1] : 0), key_ends[b] - (b > 0 ? key_ends[b - 1] : 0));
  }
  return cost.of(call.input(0), call.input(1).shape.last());
}

}  // namespace

MINDGEN_OP(PagedAttention,
           .signature = "query, key_cache, value_cache, block_tables, context_lens, antiquant_scale: none, "
                        "antiquant_offset: none, attn_mask?, q_seq_lens?, alibi_mask: none, head_num: int, "
                        "scale: float, kv_head_num: int, kv_cache_quant_mode: int, mask_mode: int, mla_v_dim: int -> y",
           .infer = infer_like_first, .run = run_paged_attention,
           .cost = [](const OpCall& call) { return paged_attention_cost(call, 8); })
MINDGEN_CUSTOM_OP(PagedAttentionFloat32,
                  .signature = "query, key_cache, value_cache, block_tables, context_lens, q_seq_lens, scale -> y",
                  .infer = infer_like_first, .run = run_paged_attention_float32,
                  .cost = [](const OpCall& call) { return paged_attention_cost(call, 5); })
MINDGEN_OP(FlashAttentionScore,
           .signature = "query, key, value, real_shift: none, drop_mask: none, padding_mask: none, attn_mask?, "
                        "prefix: none, query_ends?, kv_ends?, head_num: int, keep_prob: float, scale: float, "
                        "pre_tokens: int, next_tokens: int, inner_precise: int, input_layout: int, sparse_mode: int "
                        "-> softmax_max, softmax_sum, softmax_out, y",
           .infer = infer_flash_attention, .run = run_flash_attention, .unwritten_outputs = 3,
           .cost = flash_attention_cost)
