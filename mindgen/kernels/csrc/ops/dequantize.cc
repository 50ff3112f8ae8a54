// Weights out of the blocks of GGUF: arguments are checked here.
#include "dispatch.h"

using namespace mindgen;

namespace {

// Of a block; 0 for a type that there is not.
int64_t elements_of(mg_block_type type) {
  switch (type) {
    case MG_Q4_0:
    case MG_Q4_1:
    case MG_Q5_0:
    case MG_Q5_1:
    case MG_Q8_0: return 32;
    case MG_Q4_K:
    case MG_Q5_K:
    case MG_Q6_K: return 256;
  }
  return 0;
}

}  // namespace

extern "C" {

int mg_dequantize(const void* x, mg_block_type type, void* y, mg_dtype dtype, int64_t count) {
  const int64_t elements = elements_of(type);
  if (elements == 0) return fail("dequantize: there is no block type %d", (int)type);
  if (!is_compute_dtype(dtype)) return fail("dequantize: dtype must be float32, bfloat16 or float16");
  if (count < 0 || count % elements != 0) {
    return fail("dequantize: %lld elements are no whole blocks of %lld", (long long)count, (long long)elements);
  }
  if (count == 0) return MG_OK;
  if (!x || !y) return fail("dequantize: x or y is NULL");
  return kernels().dequantize(x, type, y, dtype, count);
}

}  // extern "C"
