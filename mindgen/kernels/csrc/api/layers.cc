// Norms, rotary embedding and activations of the C interface: the arguments are checked here.
#include "dispatch.h"

using namespace mindgen;

namespace {

int check_rows(const char* name, int64_t rows, int64_t H, mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (rows < 0 || H < 1) return fail("%s: %lld rows of %lld elements", name, (long long)rows, (long long)H);
  return MG_OK;
}

int activate(const char* name, decltype(mg_silu)* KernelTable::*kernel, const void* x, void* y, int64_t count,
             mg_dtype dtype) {
  if (!is_compute_dtype(dtype)) return fail("%s: dtype must be float32, bfloat16 or float16", name);
  if (count < 0) return fail("%s: %lld elements", name, (long long)count);
  if (count == 0) return MG_OK;
  if (!x || !y) return fail("%s: x or y is NULL", name);
  return (kernels().*kernel)(x, y, count, dtype);
}

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

int mg_rms_norm(const void* x, const void* gamma, void* y, float* rstd, int64_t rows, int64_t H, float epsilon,
                mg_dtype dtype) {
  if (check_rows("rms_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x || !gamma || !y) return fail("rms_norm: x, gamma or y is NULL");
  return kernels().rms_norm(x, gamma, y, rstd, rows, H, epsilon, dtype);
}

int mg_add_rms_norm(const void* x1, const void* x2, const void* gamma, void* y, float* rstd, void* sum,
                    int64_t rows, int64_t H, float epsilon, mg_dtype dtype) {
  if (check_rows("add_rms_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x1 || !x2 || !gamma || !y || !sum) return fail("add_rms_norm: x1, x2, gamma, y or sum is NULL");
  return kernels().add_rms_norm(x1, x2, gamma, y, rstd, sum, rows, H, epsilon, dtype);
}

int mg_layer_norm(const void* x, const void* gamma, const void* beta, void* y, float* mean, float* rstd, int64_t rows,
                  int64_t H, float epsilon, mg_dtype dtype) {
  if (check_rows("layer_norm", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x || !gamma || !beta || !y) return fail("layer_norm: x, gamma, beta or y is NULL");
  return kernels().layer_norm(x, gamma, beta, y, mean, rstd, rows, H, epsilon, dtype);
}

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

int mg_swiglu(const void* x, void* y, int64_t rows, int64_t H, mg_dtype dtype) {
  if (check_rows("swiglu", rows, H, dtype) != MG_OK) return MG_ERROR;
  if (rows == 0) return MG_OK;
  if (!x || !y) return fail("swiglu: x or y is NULL");
  return kernels().swiglu(x, y, rows, H, dtype);
}

int mg_silu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return activate("silu", &KernelTable::silu, x, y, count, dtype);
}

int mg_gelu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return activate("gelu", &KernelTable::gelu, x, y, count, dtype);
}

}  // extern "C"
