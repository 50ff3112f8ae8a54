#include "dispatch.h"
#include "simd.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

struct boolean {
  uint8_t byte;
};

// An element as a type to calculate with.
template <class T>
T value_of(T element) {
  return element;
}
float value_of(bfloat16 element) { return to_float(element); }
float value_of(float16 element) { return to_float(element); }
int32_t value_of(boolean element) { return element.byte != 0; }

// To float32 such that rounding once more, to fewer bits, gives what rounding at once would: cut off, and with its
// last bit set when anything was lost.
float round_to_odd(double value) {
  const float nearest = (float)value;
  if (nearest == value || value != value) return nearest;
  uint32_t bits = bit_cast<uint32_t>(nearest);
  if (__builtin_fabs(nearest) > __builtin_fabs(value)) bits--;
  return bit_cast<float>(bits | 1);
}
float round_to_odd(float value) { return value; }
template <class Integer>
float round_to_odd(Integer value) {
  return round_to_odd((double)value);
}

template <class To>
struct Make {
  template <class V>
  static To of(V value) {
    return (To)value;
  }
};
template <>
struct Make<boolean> {
  template <class V>
  static boolean of(V value) {
    return {value != 0};
  }
};
template <>
struct Make<bfloat16> {
  template <class V>
  static bfloat16 of(V value) {
    return from_float<bfloat16>(round_to_odd(value));
  }
};
template <>
struct Make<float16> {
  template <class V>
  static float16 of(V value) {
    return from_float<float16>(round_to_odd(value));
  }
};

template <class From, class To>
void cast_elements(const From* x, To* y, int64_t count) {
  for_pieces(count, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i++) y[i] = Make<To>::of(value_of(x[i]));
  });
}

template <class From, class To>
void cast_vectors(const From* x, To* y, int64_t count) {
  for_pieces(count, [&](int64_t first, int64_t end) {
    for (int64_t i = first; i < end; i += kWidth) store_upto(y + i, load_upto(x + i, end - i), end - i);
  });
}

template <class F>
int for_any_dtype(mg_dtype dtype, F f) {
  switch (dtype) {
    case MG_FLOAT64: return f(double());
    case MG_INT32: return f(int32_t());
    case MG_INT64: return f(int64_t());
    case MG_BOOL: return f(boolean());
    case MG_INT8: return f(int8_t());
    case MG_INT16: return f(int16_t());
    case MG_UINT8: return f(uint8_t());
    case MG_UINT16: return f(uint16_t());
    case MG_UINT32: return f(uint32_t());
    case MG_UINT64: return f(uint64_t());
    default: return for_dtype(dtype, f);
  }
}

}  // namespace

int cast(const void* x, mg_dtype from, void* y, mg_dtype to, int64_t count) {
  if (is_compute_dtype(from) && is_compute_dtype(to)) {
    return for_dtype(from, [&](auto from_type) {
      return for_dtype(to, [&](auto to_type) {
        cast_vectors((const decltype(from_type)*)x, (decltype(to_type)*)y, count);
        return (int)MG_OK;
      });
    });
  }
  return for_any_dtype(from, [&](auto from_type) {
    return for_any_dtype(to, [&](auto to_type) {
      cast_elements((const decltype(from_type)*)x, (decltype(to_type)*)y, count);
      return (int)MG_OK;
    });
  });
}

}  // namespace mindgen::MG_ISA
