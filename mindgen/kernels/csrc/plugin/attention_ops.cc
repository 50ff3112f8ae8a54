// Norm, rotary, cache and attention ops, in the call patterns of MindFormers' inference networks.
// Letters as in mindgen_kernels.h; tokens may come as (T, heads*D) or (T, 1, heads*D).
#include "op_call.h"

using mindgen::OpCall;

// x, gamma, [eps], y, rstd
MINDGEN_OP(RmsNorm) {
  call.require_count(5);
  call.require(call.elements(1) == call.last(0), "gamma must have the size of x's last axis");
  return mg_rms_norm(call.params[0], call.params[1], call.params[3], static_cast<float*>(call.params[4]), call.rows(0),
                     call.last(0), call.scalar<float>(2), call.float_dtype({0, 1}));
}

// x1, x2, gamma, [eps], y, rstd, sum
MINDGEN_OP(AddRmsNorm) {
  call.require_count(7);
  call.require(call.elements(0) == call.elements(1), "x1 and x2 must have one shape");
  call.require(call.elements(2) == call.last(0), "gamma must have the size of x1's last axis");
  return mg_add_rms_norm(call.params[0], call.params[1], call.params[2], call.params[4],
                         static_cast<float*>(call.params[5]), call.params[6], call.rows(0), call.last(0),
                         call.scalar<float>(3), call.float_dtype({0, 1, 2}));
}

// x, gamma, beta, [begin_norm_axis, begin_params_axis, eps], y, mean, rstd
MINDGEN_OP(LayerNorm) {
  call.require_count(9);
  const auto is_last = [&](int i) { return call.axis(0, call.scalar<int64_t>(i)) == call.ndims[0] - 1; };
  call.require(is_last(3) && is_last(4), "begin_norm_axis and begin_params_axis must be the last axis");
  call.require(call.elements(1) == call.last(0) && call.elements(2) == call.last(0),
               "gamma and beta must have the size of x's last axis");
  return mg_layer_norm(call.params[0], call.params[1], call.params[2], call.params[6],
                       static_cast<float*>(call.params[7]), static_cast<float*>(call.params[8]), call.rows(0),
                       call.last(0), call.scalar<float>(5), call.float_dtype({0, 1, 2}));
}

// query, key, cos, sin, lengths, query_out, key_out; the rotation is told by `interleaved`.
static int apply_rotary(const OpCall& call, bool interleaved) {
  const int64_t T = call.rows(0), D = call.last(2);
  call.require(D > 0 && call.last(0) % D == 0 && call.last(1) % D == 0,
               "query's and key's rows must be whole heads of cos's size");
  call.require(call.rows(1) == T && call.elements(3) == call.elements(2),
               "query and key, cos and sin must match in rows");
  return mg_apply_rotary(call.params[0], call.params[1], call.params[2], call.params[3],
                         call.integers<int32_t>(4, "int32"), call.output(2), call.output(1), T, call.last(0) / D,
                         call.last(1) / D, D, call.rows(2), call.elements(4), interleaved,
                         call.float_dtype({0, 1, 2, 3}));
}

// query, key, cos, sin, lengths, [cos_format], query_out, key_out
MINDGEN_OP(ApplyRotaryPosEmb) {
  call.require_count(8);
  const int64_t cos_format = call.scalar<int64_t>(5);
  call.require(cos_format == 2 || cos_format == 3, "cos_format must be 2 (rotate half) or 3 (interleaved)");
  return apply_rotary(call, cos_format == 3);
}

MINDGEN_CUSTOM_OP(ApplyRotaryPosEmbFloat32) {
  call.require_count(7);
  return apply_rotary(call, false);
}

// key, value, key_cache, value_cache, slot_mapping, output (nobody reads it)
static int reshape_and_cache(const OpCall& call) {
  call.require_count(6);
  call.require(call.ndims[2] == 4, "caches must be (blocks, block, Hkv, D)");
  for (int copied : call.copied) call.require(copied != 2 && copied != 3, "caches must be contiguous, not views");
  const int64_t T = call.elements(4), slots = call.dim(2, 0) * call.dim(2, 1), width = call.elements(2, 2, 4);
  call.dtype({0, 1, 2, 3});
  call.require(call.elements(0) == T * width && call.elements(1) == T * width,
               "key and value must have a row of the cache's width for each slot");
  call.require(call.elements(3) == call.elements(2), "the two caches must have one shape");
  return mg_reshape_and_cache(call.params[0], call.params[1], call.params[2], call.params[3],
                              call.integers<int32_t>(4, "int32"), T, slots, width * call.item_size(0));
}

MINDGEN_OP(ReshapeAndCache) { return reshape_and_cache(call); }
MINDGEN_CUSTOM_OP(ReshapeAndCacheFloat32) { return reshape_and_cache(call); }

static void require_paged_shapes(const OpCall& call, int query_lens) {
  call.require(call.ndims[1] == 4 && call.ndims[3] == 2, "caches must be (blocks, block, Hkv, D), block_tables (B, n)");
  call.require(call.elements(1) == call.elements(2), "the two caches must have one shape");
  const int64_t B = call.dim(3, 0);
  call.require(call.elements(4) == B && (call.absent(query_lens) || call.elements(query_lens) == B),
               "context_lens and q_seq_lens must have an entry for each row of block_tables");
}

struct PagedArguments {
  const int32_t* query_lens;
  int64_t Hq;
  float scale;
};

// query, key_cache, value_cache, block_tables, context_lens, ..., y
static int paged_attention(const OpCall& call, const PagedArguments& arguments) {
  const int64_t Hkv = call.dim(1, 2), D = call.dim(1, 3), B = call.dim(3, 0);
  call.require(call.last(0) == arguments.Hq * D, "query's rows must be head_num heads of the caches' size");
  return mg_paged_attention(call.params[0], call.params[1], call.params[2], call.integers<int32_t>(3, "int32"),
                            call.integers<int32_t>(4, "int32"), arguments.query_lens, call.output(), call.rows(0), B,
                            call.dim(3, 1), call.dim(1, 0), call.dim(1, 1), arguments.Hq, Hkv, D, arguments.scale,
                            call.float_dtype({0, 1, 2}));
}

// query, key_cache, value_cache, block_tables, context_lens, antiquant_scale, antiquant_offset, attn_mask, q_seq_lens,
// alibi_mask, [head_num, scale, kv_head_num, kv_cache_quant_mode, mask_mode, mla_v_dim], y.
// attn_mask is the causal mask, which the lengths already tell.
MINDGEN_OP(PagedAttention) {
  call.require_count(17);
  require_paged_shapes(call, 8);
  call.require_absent(5, "antiquant_scale");
  call.require_absent(6, "antiquant_offset");
  call.require_absent(9, "alibi_mask");
  call.require(call.scalar<int64_t>(13) == 0, "a quantized KV cache is not served");
  call.require(call.scalar<int64_t>(15) == 0, "mla_v_dim is not served");
  call.require(call.scalar<int64_t>(12) == call.dim(1, 2), "kv_head_num must be the caches' number of heads");
  const int32_t* query_lens = call.absent(8) ? nullptr : call.integers<int32_t>(8, "int32");
  return paged_attention(call, {query_lens, call.scalar<int64_t>(10), call.scalar<float>(11)});
}

// query, key_cache, value_cache, block_tables, context_lens, q_seq_lens, scale (1,), y
MINDGEN_CUSTOM_OP(PagedAttentionFloat32) {
  call.require_count(8);
  require_paged_shapes(call, 5);
  const int64_t D = call.dim(1, 3), Hq = D > 0 ? call.last(0) / D : 0;
  return paged_attention(call, {call.integers<int32_t>(5, "int32"), Hq, call.scalar<float>(6)});
}

// query, key, value, real_shift, drop_mask, padding_mask, attn_mask, prefix, query_ends, kv_ends,
// [head_num, keep_prob, scale, pre_tokens, next_tokens, inner_precise, input_layout, sparse_mode],
// softmax_max, softmax_sum, softmax_out, y. attn_mask is the causal mask, which the lengths already tell.
MINDGEN_OP(FlashAttentionScore) {
  constexpr int64_t layout_th = 5;
  call.require_count(22);
  call.require_absent(3, "real_shift");
  call.require_absent(4, "drop_mask");
  call.require_absent(5, "padding_mask");
  call.require_absent(7, "prefix");
  call.require(call.scalar<int64_t>(16) == layout_th, "input_layout must be TH");
  call.require(!call.absent(8) && !call.absent(9), "TH needs actual_seq_qlen and actual_seq_kvlen");
  call.require(call.elements(8) == call.elements(9), "actual_seq_qlen and actual_seq_kvlen must have one length");
  const int64_t Hq = call.scalar<int64_t>(10), D = Hq > 0 ? call.last(0) / Hq : 0;
  call.require(D > 0 && D * Hq == call.last(0) && call.last(1) % D == 0, "rows must be whole heads: check head_num");
  call.require(call.elements(1) == call.elements(2), "key and value must have one shape");
  return mg_flash_attention(call.params[0], call.params[1], call.params[2], call.integers<int64_t>(8, "int64"),
                            call.integers<int64_t>(9, "int64"), call.output(), call.rows(0), call.rows(1),
                            call.elements(8), Hq, call.last(1) / D, D, call.scalar<float>(12),
                            call.float_dtype({0, 1, 2}));
}
