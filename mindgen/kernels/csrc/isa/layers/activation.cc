#include "dispatch.h"
#include "simd.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

template <class Function>
int apply(const void* x, void* y, int64_t count, mg_dtype dtype, const Function& function) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(count, [&](int64_t first, int64_t end) {
      for (int64_t i = first; i < end; i += kWidth) {
        store_upto((T*)y + i, function(load_upto((const T*)x + i, end - i)), end - i);
      }
    });
    return (int)MG_OK;
  });
}

}  // namespace

int silu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return apply(x, y, count, dtype, [](floatv value) { return silu(value); });
}

int gelu(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return apply(x, y, count, dtype, [](floatv value) { return gelu(value); });
}

int gelu_erf(const void* x, void* y, int64_t count, mg_dtype dtype) {
  return apply(x, y, count, dtype, [](floatv value) { return gelu_erf(value); });
}

int swiglu(const void* x, void* y, int64_t rows, int64_t H, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(rows, H, [&](int64_t row) {
      const T* gate = (const T*)x + row * 2 * H;
      const T* up = gate + H;
      T* out = (T*)y + row * H;
      for (int64_t i = 0; i < H; i += kWidth) {
        store_upto(out + i, silu(load_upto(gate + i, H - i)) * load_upto(up + i, H - i), H - i);
      }
    });
    return (int)MG_OK;
  });
}

}  // namespace mindgen::MG_ISA
