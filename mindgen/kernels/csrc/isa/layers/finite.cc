#include <atomic>

#include "dispatch.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

// Whether count values are finite; they are kept at y as well, if that is not NULL.
template <class Bits, Bits infinity>
bool pass(const Bits* __restrict x, Bits* __restrict y, int64_t count) {
  // Without their signs, the bits of floats are ordered like their values, and infinity and NaN come last.
  constexpr Bits magnitude = (Bits) ~((Bits)1 << (8 * sizeof(Bits) - 1));
  Bits reached = 0;
  if (y) {
    for (int64_t i = 0; i < count; i++) {
      const Bits bits = x[i];
      y[i] = bits;
      reached |= (Bits)((bits & magnitude) >= infinity);
    }
  } else {
    for (int64_t i = 0; i < count; i++) reached |= (Bits)((x[i] & magnitude) >= infinity);
  }
  return !reached;
}

// Of the elements from first on.
bool pass(const void* x, void* y, mg_dtype dtype, int64_t first, int64_t count) {
  if (dtype == MG_FLOAT32) {
    return pass<int32_t, 0x7f800000>((const int32_t*)x + first, y ? (int32_t*)y + first : nullptr, count);
  }
  const int16_t* from = (const int16_t*)x + first;
  int16_t* to = y ? (int16_t*)y + first : nullptr;
  return dtype == MG_BFLOAT16 ? pass<int16_t, 0x7f80>(from, to, count) : pass<int16_t, 0x7c00>(from, to, count);
}

}  // namespace

int are_finite(const void* x, int64_t elements, mg_dtype dtype, int32_t* finite) {
  constexpr int64_t piece = 8 * kTaskElements;  // an element takes far less time than arithmetic does
  std::atomic<bool> holds{true};
  for_rows((elements + piece - 1) / piece, kTaskElements, [&](int64_t i) {
    const int64_t first = i * piece, left = elements - first;
    if (!pass(x, nullptr, dtype, first, left < piece ? left : piece)) holds = false;
  });
  *finite = holds;
  return MG_OK;
}

int copy_finite(const void* x, void* y, int64_t elements, mg_dtype dtype, int32_t* finite) {
  *finite = pass(x, y, dtype, 0, elements);
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
