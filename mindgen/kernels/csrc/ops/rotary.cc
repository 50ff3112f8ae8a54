// Rotary embedding, alone and on the way to the cache: arguments are checked here. Letters as in mindgen_kernels.h; tokens
// may come as (T, heads*D) or (T, 1, heads*D).
#include "dispatch.h"
#include "fused.h"

using namespace mindgen;

namespace {

int check_lengths(const int32_t* lengths, int64_t B, int64_t T, int64_t cos_rows) {
  int64_t total = 0;
  for (int64_t b = 0; b < B; b++) {
    if (lengths[b] < 0 || lengths[b] > cos_rows) {
      return fail("apply_rotary: sequence %lld has length %d, cos and sin have %lld rows", (long long)b,
                  (int)lengths[b], (long long)cos_rows);
    }
    total += lengths[b];
  }
  if (total != T) return fail("apply_rotary: lengths sum to %lld, not T, %lld", (long long)total, (long long)T);
  return MG_OK;
}

}  // namespace

extern "C" {

int mg_apply_rotary(const void* query, const void* key, const void* cos, const void* sin, const int32_t* lengths,
                    void* query_out, void* key_out, int64_t T, int64_t Hq, int64_t Hkv, int64_t D,
                    int64_t cos_rows, int64_t B, bool interleaved, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("apply_rotary: dtype must be float32, bfloat16 or float16");
  if (T < 0 || Hq < 0 || Hkv < 0 || cos_rows < 0 || B < 0) {
    return fail("apply_rotary: negative size: T %lld, Hq %lld, Hkv %lld, cos_rows %lld, B %lld", (long long)T,
                (long long)Hq, (long long)Hkv, (long long)cos_rows, (long long)B);
  }
  if (D < 2 || D % 2 != 0) return fail("apply_rotary: head size %lld is not even", (long long)D);
  if (T == 0) return MG_OK;
  if (!cos || !sin || (Hq > 0 && (!query || !query_out)) || (Hkv > 0 && (!key || !key_out))) {
    return fail("apply_rotary: a buffer is NULL");
  }
  const int32_t all_tokens = (int32_t)T;
  if (cos_rows == T) {
    lengths = &all_tokens;
    B = 1;
  } else if (!lengths) {
    return fail("apply_rotary: cos has %lld rows for %lld tokens, and lengths is NULL", (long long)cos_rows,
                (long long)T);
  } else if (check_lengths(lengths, B, T, cos_rows) != MG_OK) {
    return MG_ERROR;
  }
  return kernels().apply_rotary(query, key, cos, sin, lengths, query_out, key_out, T, Hq, Hkv, D, cos_rows, B,
                                interleaved, dtype);
}

int mg_rotary_and_cache(const mg_rotary_and_cache_call* call) {
  if (!is_compute_dtype(call->dtype)) return fail("rotary_and_cache: dtype must be float32, bfloat16 or float16");
  if (call->T < 0 || call->Hq < 1 || call->Hkv < 1 || call->D < 2 || call->D % 2 != 0 || call->num_slots < 0) {
    return fail("rotary_and_cache: T %lld, Hq %lld, Hkv %lld, head size %lld, %lld slots: sizes must be positive, the "
                "head size even", (long long)call->T, (long long)call->Hq, (long long)call->Hkv, (long long)call->D,
                (long long)call->num_slots);
  }
  if (call->T == 0) return MG_OK;
  if (!call->query || !call->key || !call->value || !call->cos || !call->sin || !call->slot_mapping ||
      !call->query_out || !call->key_cache || !call->value_cache || !call->query_gamma != !call->key_gamma) {
    return fail("rotary_and_cache: a buffer is NULL");
  }
  if (check_slots("rotary_and_cache", call->slot_mapping, call->T, call->num_slots) != MG_OK) return MG_ERROR;
  return kernels().rotary_and_cache(call);
}

}  // extern "C"

namespace {

void infer_apply_rotary(const OpCall& call) {
  call.output(0).set_shape(call.input(0).shape);
  call.output(1).set_shape(call.input(1).shape);
}

int apply_rotary(const OpCall& call, bool interleaved) {
  const Tensor &query = call.input(0), &key = call.input(1), &cos = call.input(2), &sin = call.input(3);
  const int64_t T = query.shape.rows(), D = cos.shape.last();
  require(D > 0 && query.shape.last() % D == 0 && key.shape.last() % D == 0,
          "query's and key's rows must be whole heads of cos's size");
  require(key.shape.rows() == T && sin.elements() == cos.elements(),
          "query and key, cos and sin must match in rows");
  return mg_apply_rotary(query.data, key.data, cos.data, sin.data, call.int32s(4), call.output(0).data,
                         call.output(1).data, T, query.shape.last() / D, key.shape.last() / D, D, cos.shape.rows(),
                         call.input(4).elements(), interleaved, common_float({query, key, cos, sin}));
}

int run_apply_rotary(const OpCall& call) {
  const int64_t cos_format = call.scalar<int64_t>(5);
  require(cos_format == 2 || cos_format == 3, "cos_format must be 2 (rotate half) or 3 (interleaved)");
  return apply_rotary(call, cos_format == 3);
}

int run_apply_rotary_float32(const OpCall& call) { return apply_rotary(call, false); }

int run_rotary_and_cache(const OpCall& op_call) {
  const Tensor &query = op_call.input(0), &key = op_call.input(1), &value = op_call.input(2), &cos = op_call.input(3);
  const Tensor& cache = op_call.input(6);
  require(cos.shape.first() == query.shape.first(), "cos and sin must have a row for each token");
  mg_rotary_and_cache_call call{};
  call.query = query.data, call.key = key.data, call.value = value.data;
  call.query_step = query.step, call.key_step = key.step, call.value_step = value.step;
  call.cos = cos.data, call.sin = op_call.input(4).data;
  call.slot_mapping = op_call.int32s(5);
  call.key_cache = cache.data, call.value_cache = op_call.input(7).data;
  call.query_gamma = op_call.data_or_null(8), call.key_gamma = op_call.data_or_null(9);
  call.epsilon = op_call.scalar<float>(10);
  call.interleaved = op_call.scalar<bool>(11);
  call.query_out = op_call.output(0).data;
  call.T = query.shape.first(), call.D = cos.shape.last();
  call.Hq = query.shape.elements(1) / call.D, call.Hkv = key.shape.elements(1) / call.D;
  call.num_slots = cache.shape.dims[0] * cache.shape.dims[1];
  call.dtype = query.dtype;
  return mg_rotary_and_cache(&call);
}

Cost rotary_and_cache_cost(const OpCall& call) {
  int64_t moved = 0;
  for (int i = 0; i < 3; i++) moved += call.input(i).bytes();
  return {2 * moved + call.input(3).bytes() + call.input(4).bytes(), 0};
}

}  // namespace

MINDGEN_OP(ApplyRotaryPosEmb,
           .signature = "query, key, cos, sin, lengths, cos_format: int -> query_out, key_out",
           .infer = infer_apply_rotary, .run = run_apply_rotary)
MINDGEN_CUSTOM_OP(ApplyRotaryPosEmbFloat32, .signature = "query, key, cos, sin, lengths -> query_out, key_out",
                  .infer = infer_apply_rotary, .run = run_apply_rotary_float32)

namespace mindgen::fused {

const Op rotary_and_cache = {
    .name = "RotaryAndCache",
    .signature = "query, key, value, cos, sin, slot_mapping, key_cache!, value_cache!, query_gamma?, key_gamma?, "
                 "epsilon: float, interleaved: bool -> query_out",
    .infer = infer_like_first,
    .run = run_rotary_and_cache,
    .strided_inputs = 3,
    .cost = rotary_and_cache_cost};

}  // namespace mindgen::fused
