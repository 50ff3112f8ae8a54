// What the machine gives at best: reading memory, and multiplying without reading any.
#include <chrono>

#include "matmul.h"

namespace mindgen::MG_ISA {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int64_t kReadBytes = 1 << 20;  // of a task
constexpr int64_t kProductRounds = 50000;
constexpr int64_t kProductTasks = 8;  // of a thread

// Has the compiler believe that the value is used.
template <class V>
void keep(const V& value) {
  __asm__ volatile("" : : "m"(value));
}

void read(const char* data) {
  constexpr int kStreams = 4;
  uintv sums[kStreams] = {};
  for (int64_t i = 0; i < kReadBytes; i += kStreams * sizeof(uintv)) {
    for (int j = 0; j < kStreams; j++) {
      const char* at = data + i + j * sizeof(uintv);
      if (j * sizeof(uintv) % 64 == 0) __builtin_prefetch(at + 4096);
      sums[j] ^= load_bits<uintv>(at);
    }
  }
  keep(sums[0] ^ sums[1] ^ sums[2] ^ sums[3]);
}

// Chains of products that no compiler can shorten; pairs with numbers that no processor stumbles over.
template <class Element>
inline floatv next(FloatKernel<Element>, uint32_t weight, floatv inputs, floatv sums) {
  return FloatKernel<Element>::multiply_add(weight, sums, inputs);
}
#if defined(__AVX512BF16__)
inline floatv next(PairKernel, uint32_t weight, floatv inputs, floatv sums) {
  return PairKernel::multiply_add(weight, inputs, sums);
}
#endif

// Floating point operations of independent products in registers.
template <class Arithmetic>
double multiply() {
  constexpr int kSums = kWidth == 16 ? 16 : 12;  // hide the latency, and fit the registers
  volatile uint32_t half = 0x3f003f00;           // as a pair of bfloat16, and about as much as a float32
  const uint32_t weight = half;
  const floatv inputs = bit_cast<floatv>(uintv{} + half);
  floatv sums[kSums];
  for (int j = 0; j < kSums; j++) sums[j] = broadcast(j);
  for (int64_t i = 0; i < kProductRounds; i++) {
#pragma GCC unroll 16
    for (int j = 0; j < kSums; j++) sums[j] = next(Arithmetic(), weight, inputs, sums[j]);
  }
  for (int j = 1; j < kSums; j++) sums[0] += sums[j];
  keep(sums[0]);
  return 2.0 * kProductRounds * kSums * kWidth * Arithmetic::Units::kElements;
}

#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
double multiply_tiles() {
  constexpr int64_t kRounds = kProductRounds / 8;
  const TileBlock::Session session{};
  (void)session;
  tile_zero(0);
  tile_zero(1);
  tile_zero(2);
  tile_zero(3);
  tile_zero(4);
  tile_zero(5);
  for (int64_t i = 0; i < kRounds; i++) {
    tile_multiply_add(0, 4, 5);
    tile_multiply_add(1, 4, 5);
    tile_multiply_add(2, 4, 5);
    tile_multiply_add(3, 4, 5);
  }
  return 2.0 * kRounds * 4 * kTileRows * kTileRows * kTileRowBytes / sizeof(bfloat16);
}
#endif

// Seconds of so many tasks by all threads, awake already.
template <class Body>
double seconds(int64_t tasks, const Body& body) {
  parallel_for(mg_get_num_threads(), mg_get_num_threads(), [&](int64_t) { body(0); });
  const auto start = Clock::now();
  parallel_for(tasks, mg_get_num_threads(), body);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

double measure_read_bandwidth(const void* data, int64_t bytes) {
  const int64_t tasks = bytes / kReadBytes;
  if (tasks == 0) return 0;
  return tasks * kReadBytes / seconds(tasks, [&](int64_t i) { read((const char*)data + i * kReadBytes); });
}

double measure_product_rate(mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    double operations = 0;
    const int64_t tasks = kProductTasks * mg_get_num_threads();
    const double time = seconds(tasks, [&](int64_t i) {
#if defined(__AMX_BF16__) || defined(MG_TILE_EMULATION)
      const double done = kHasTiles<T, T> ? multiply_tiles() : multiply<typename ArithmeticOf<T>::type>();
#else
      const double done = multiply<typename ArithmeticOf<T>::type>();
#endif
      if (i == 0) operations = done;
    });
    return tasks * operations / time;
  });
}

}  // namespace mindgen::MG_ISA
