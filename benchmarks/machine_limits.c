// What the machine gives at best: reading memory, and multiplying bfloat16 without reading any.
#include <omp.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

typedef uint64_t vector __attribute__((vector_size(64), aligned(1), may_alias));

static volatile uint64_t sink;

// Bytes per second of all threads reading the data once, whole parts of it.
double read_bandwidth(const char* data, size_t bytes, int threads) {
  const size_t part = 1 << 20;
  const double start = omp_get_wtime();
#pragma omp parallel for num_threads(threads) schedule(dynamic)
  for (size_t first = 0; first < bytes / part * part; first += part) {
    vector sums[4] = {};
    for (size_t i = first; i < first + part; i += 256) {
      for (int j = 0; j < 4; j++) {
        __builtin_prefetch(data + i + 64 * j + 4096);
        sums[j] ^= *(const vector*)(data + i + 64 * j);
      }
    }
    const vector all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
    sink = all[0] ^ all[7];
  }
  return bytes / part * part / (omp_get_wtime() - start);
}

// Floating point operations of one round of independent products, in registers only.
#if defined(__AMX_BF16__)
static double products(long rounds) {
  static const uint8_t configuration[64] __attribute__((aligned(64))) = {
      [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64,
      [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16};
  _tile_loadconfig(configuration);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (long i = 0; i < rounds; i++) {
    _tile_dpbf16ps(0, 4, 5);
    _tile_dpbf16ps(1, 4, 5);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 5);
  }
  _tile_release();
  return rounds * 4.0 * 16 * 16 * 32 * 2;
}
#elif defined(__AVX512BF16__)
static double products(long rounds) {
  const __m512bh ones = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  __m512 sums[16] = {};
  for (long i = 0; i < rounds; i++) {
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) sums[j] = _mm512_dpbf16_ps(sums[j], ones, ones);
  }
  for (int j = 1; j < 16; j++) sums[0] += sums[j];
  sink = sums[0][0];
  return rounds * 16.0 * 32 * 2;
}
#else
static double products(long rounds) {
  (void)rounds;
  return 0;
}
#endif

// Operations per second of all threads; 0 without an instruction for bfloat16.
double product_rate(int threads, long rounds) {
  double operations = 0;
  const double start = omp_get_wtime();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
  operations = products(rounds);
  return operations / (omp_get_wtime() - start);
}
