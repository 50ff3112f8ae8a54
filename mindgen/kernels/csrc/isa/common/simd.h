// Vectors of float32, as wide as the instruction set this file is compiled for, and the floating point types of
// the buffers. Only for files compiled per instruction set: everything is in the namespace of that set.
#pragma once
#include <stdint.h>
#include <string.h>
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "mindgen_kernels.h"

namespace mindgen::MG_ISA {

#if defined(__AVX512BF16__) || defined(MG_TILE_EMULATION)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float floatv __attribute__((vector_size(kWidth * 4)));
typedef int32_t intv __attribute__((vector_size(kWidth * 4)));
typedef uint32_t uintv __attribute__((vector_size(kWidth * 4)));
typedef uint16_t shortv __attribute__((vector_size(kWidth * 2)));

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

template <class To, class From>
static inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

static inline floatv broadcast(float value) { return value - floatv{}; }
static inline floatv select(intv mask, floatv a, floatv b) { return mask ? a : b; }
static inline floatv maximum(floatv a, floatv b) { return a > b ? a : b; }
static inline floatv minimum(floatv a, floatv b) { return a < b ? a : b; }

// ---- bfloat16

static inline floatv bfloat16_to_float(shortv bits) {
#if defined(__AVX2__) && !defined(__AVX512BF16__)
  return bit_cast<floatv>(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bit_cast<__m128i>(bits)), 16));  // GCC takes five
#else
  return bit_cast<floatv>(__builtin_convertvector(bits, uintv) << 16);
#endif
}

#if defined(__AVX512BF16__)
// What is below 2^-126 becomes 0.
static inline shortv float_to_bfloat16(floatv value) { return bit_cast<shortv>(_mm512_cvtneps_pbh(value)); }
#else
static inline shortv float_to_bfloat16(floatv value) {
  const uintv bits = bit_cast<uintv>(value);
  const uintv nearest_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const uintv quiet_nan = (bits >> 16) | 0x40;
  return __builtin_convertvector(value != value ? quiet_nan : nearest_even, shortv);
}
#endif

// ---- float16

#if defined(__AVX512BF16__)
static inline floatv float16_to_float(shortv bits) { return _mm512_cvtph_ps(bit_cast<__m256i>(bits)); }
static inline shortv float_to_float16(floatv value) {
  return bit_cast<shortv>(_mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(__F16C__)
static inline floatv float16_to_float(shortv bits) { return _mm256_cvtph_ps(bit_cast<__m128i>(bits)); }
static inline shortv float_to_float16(floatv value) {
  return bit_cast<shortv>(_mm256_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
#else
static inline floatv float16_to_float(shortv bits) {
  const uintv wide = __builtin_convertvector(bits, uintv);
  const uintv magnitude = wide & 0x7fff;
  const uintv normal = (magnitude << 13) + (112u << 23);
  // No float32 subnormals on the way: other libraries may have told the processor to flush them.
  const uintv subnormal = bit_cast<uintv>(__builtin_convertvector(bit_cast<intv>(magnitude), floatv) * 0x1p-24f);
  const uintv infinite_or_nan = (magnitude << 13) | 0x7f800000;
  uintv result = magnitude < 0x400 ? subnormal : normal;
  result = magnitude >= 0x7c00 ? infinite_or_nan : result;
  return bit_cast<floatv>(result | (wide & 0x8000) << 16);
}

static inline shortv float_to_float16(floatv value) {
  const uintv bits = bit_cast<uintv>(value);
  const uintv magnitude = bits & 0x7fffffff;
  const uintv normal = (magnitude - (112u << 23) + 0xfff + ((magnitude >> 13) & 1)) >> 13;
  // The unit in the last place of 0.5 is the smallest float16, so that adding 0.5 rounds to it.
  const uintv subnormal = bit_cast<uintv>(bit_cast<floatv>(magnitude) + 0.5f) - 0x3f000000;
  const uintv nan = ((magnitude >> 13) & 0x3ff) | 0x7e00;
  uintv result = magnitude < 0x38800000 ? subnormal : normal;
  result = magnitude >= 0x47800000 ? uintv{} + 0x7c00 : result;  // 65536 and above
  result = magnitude > 0x7f800000 ? nan : result;
  return __builtin_convertvector(result | (bits >> 16 & 0x8000), shortv);
}
#endif

// ---- Loads and stores of kWidth elements, or of the first count of them: the rest is 0, and not touched in memory.

template <class V>
static inline V load_bits(const void* from) {
  V v;
  memcpy(&v, from, sizeof(v));
  return v;
}

static inline floatv load(const float* from) { return load_bits<floatv>(from); }
static inline floatv load(const bfloat16* from) { return bfloat16_to_float(load_bits<shortv>(from)); }
static inline floatv load(const float16* from) { return float16_to_float(load_bits<shortv>(from)); }

static inline void store(float* to, floatv value) { memcpy(to, &value, sizeof(value)); }
static inline void store(bfloat16* to, floatv value) {
  const shortv bits = float_to_bfloat16(value);
  memcpy(to, &bits, sizeof(bits));
}
static inline void store(float16* to, floatv value) {
  const shortv bits = float_to_float16(value);
  memcpy(to, &bits, sizeof(bits));
}

#if defined(__AVX512BF16__)
static inline __mmask16 first(int64_t count) { return (1u << count) - 1; }
static inline shortv load_partial_bits(const void* from, int64_t count) {
  return bit_cast<shortv>(_mm256_maskz_loadu_epi16(first(count), from));
}
static inline floatv load_partial(const float* from, int64_t count) {
  return _mm512_maskz_loadu_ps(first(count), from);
}
static inline floatv load_partial(const bfloat16* from, int64_t count) {
  return bfloat16_to_float(load_partial_bits(from, count));
}
static inline floatv load_partial(const float16* from, int64_t count) {
  return float16_to_float(load_partial_bits(from, count));
}
static inline void store_partial(float* to, floatv value, int64_t count) {
  _mm512_mask_storeu_ps(to, first(count), value);
}
static inline void store_partial(bfloat16* to, floatv value, int64_t count) {
  _mm256_mask_storeu_epi16(to, first(count), bit_cast<__m256i>(float_to_bfloat16(value)));
}
static inline void store_partial(float16* to, floatv value, int64_t count) {
  _mm256_mask_storeu_epi16(to, first(count), bit_cast<__m256i>(float_to_float16(value)));
}
#else
template <class T>
__attribute__((noinline)) static floatv load_partial(const T* from, int64_t count) {
  T elements[kWidth] = {};
  for (int64_t i = 0; i < count; i++) elements[i] = from[i];
  return load(elements);
}

template <class T>
__attribute__((noinline)) static void store_partial(T* to, floatv value, int64_t count) {
  T elements[kWidth];
  store(elements, value);
  for (int64_t i = 0; i < count; i++) to[i] = elements[i];
}
#endif

template <class T>
static inline floatv load_upto(const T* from, int64_t count) {
  return count >= kWidth ? load(from) : load_partial(from, count);
}

template <class T>
static inline void store_upto(T* to, floatv value, int64_t count) {
  if (count >= kWidth) {
    store(to, value);
  } else {
    store_partial(to, value, count);
  }
}

// ---- Single elements

static inline float to_float(float value) { return value; }
static inline float to_float(bfloat16 value) { return bit_cast<float>((uint32_t)value.bits << 16); }
static inline float to_float(float16 value) { return float16_to_float(shortv{value.bits})[0]; }

template <class T>
static inline T from_float(float value) {
  T elements[kWidth];
  store(elements, broadcast(value));
  return elements[0];
}

// ---- Across the lanes

static inline intv lane_numbers() {
  intv numbers;
  for (int i = 0; i < kWidth; i++) numbers[i] = i;
  return numbers;
}

static inline float sum(floatv v) {
  float lanes[kWidth];
  memcpy(lanes, &v, sizeof(v));
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}

static inline float max(floatv v) {
  float lanes[kWidth];
  memcpy(lanes, &v, sizeof(v));
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
  }
  return lanes[0];
}

// ---- exp, within 2 units in the last place; exp(-inf) = 0, exp(nan) = nan

static inline floatv exp(floatv x) {
  x = x < -104.0f ? broadcast(-104.0f) : x;
  x = x > 89.0f ? broadcast(89.0f) : x;
  const float to_integer = 12582912.0f;  // 1.5 * 2^23: adding it rounds the fraction away
  const floatv n = (x * 1.44269504f + to_integer) - to_integer;
  // ln 2 in two parts, the first short enough for n * part to be exact
  const floatv r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  floatv y = r * (1.0f / 5040) + 1.0f / 720;
  y = y * r + 1.0f / 120;
  y = y * r + 1.0f / 24;
  y = y * r + 1.0f / 6;
  y = y * r + 0.5f;
  y = y * r + 1.0f;
  y = y * r + 1.0f;
#if defined(__AVX512BF16__)
  return _mm512_scalef_ps(y, n);
#else
  // 2^n in two factors, as n reaches from -150 to 128
  const intv exponent = __builtin_convertvector(n, intv), first = exponent >> 1, second = exponent - first;
  return y * bit_cast<floatv>((first + 127) << 23) * bit_cast<floatv>((second + 127) << 23);
#endif
}

static inline floatv silu(floatv x) { return x / (1 + exp(-x)); }

// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, in other words
static inline floatv gelu(floatv x) { return x / (1 + exp(-x * (x * x * 0.0713548163f + 1.59576912f))); }

// x * (1 + erf(x / sqrt(2))) / 2. With z = |x| / sqrt(2) and t = 1 / (1 + z / 2), erfc(z) is t * exp(a polynomial in t
// - z^2) to within 1.2e-7 of itself, by the Chebyshev coefficients of Numerical Recipes, section 6.2.
static inline floatv gelu_erf(floatv x) {
  const floatv z = maximum(x, -x) * 0.70710678f, t = 1 / (1 + 0.5f * z);
  const float coefficients[] = {-0.82215223f, 1.48851587f,  -1.13520398f, 0.27886807f, -0.18628806f,
                                0.09678418f,  0.37409196f, 1.00002368f,  -1.26551223f};
  floatv sum = broadcast(0.17087277f);
  for (float coefficient : coefficients) sum = sum * t + coefficient;
  const floatv half_erfc = 0.5f * t * exp(sum - z * z);
  return x * select(x < 0, half_erfc, 1 - half_erfc);
}

// ---- The dtype of a call as a type: f(float()), f(bfloat16()) or f(float16())

template <class F>
static inline auto for_dtype(mg_dtype dtype, F f) {
#if defined(MG_TILE_EMULATION)
  (void)dtype;  // tiles are for bfloat16, and the other types would take long to compile
  return f(bfloat16());
#else
  switch (dtype) {
    case MG_BFLOAT16: return f(bfloat16());
    case MG_FLOAT16: return f(float16());
    default: return f(float());
  }
#endif
}

}  // namespace mindgen::MG_ISA
