// The few tile operations of AMX the matrix product needs, on 8 tiles of 16 rows of 64 bytes. Tile numbers must be
// literals. With MG_TILE_EMULATION they are plain C++, for tests on machines without AMX.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if !defined(MG_TILE_EMULATION)
#include <immintrin.h>
#endif

namespace mindgen::MG_ISA {

constexpr int kTileRows = 16;
constexpr int kTileRowBytes = 64;

#if defined(MG_TILE_EMULATION)

static thread_local uint8_t tiles[8][kTileRows][kTileRowBytes];

static inline void tile_configure() { memset(tiles, 0xff, sizeof(tiles)); }  // NaN shows a tile never set
static inline void tile_release() { memset(tiles, 0xff, sizeof(tiles)); }
static inline void tile_zero(int tile) { memset(tiles[tile], 0, sizeof(tiles[tile])); }

static inline void tile_load(int tile, const void* from, int64_t stride) {
  for (int row = 0; row < kTileRows; row++) memcpy(tiles[tile][row], (const char*)from + row * stride, kTileRowBytes);
}

static inline void tile_store(int tile, void* to, int64_t stride) {
  for (int row = 0; row < kTileRows; row++) memcpy((char*)to + row * stride, tiles[tile][row], kTileRowBytes);
}

// Subnormals count as 0, as in the processor.
static inline float normal_or_zero(float value) { return fabsf(value) < 0x1p-126f ? copysignf(0, value) : value; }

static inline float bfloat16_at(int tile, int row, int column) {
  uint32_t bits = 0;
  memcpy((char*)&bits + 2, &tiles[tile][row][2 * column], 2);
  float value;
  memcpy(&value, &bits, sizeof(value));
  return normal_or_zero(value);
}

// sums (16, 16) float32 += a (16, 32) times b (16, 16, 2), where b holds the pairs along the summed axis.
static inline void tile_multiply_add(int sums, int a, int b) {
  for (int row = 0; row < kTileRows; row++) {
    for (int column = 0; column < 16; column++) {
      float even = 0, odd = 0;
      for (int k = 0; k < 16; k++) {
        even = normal_or_zero(fmaf(bfloat16_at(a, row, 2 * k), bfloat16_at(b, k, 2 * column), even));
        odd = normal_or_zero(fmaf(bfloat16_at(a, row, 2 * k + 1), bfloat16_at(b, k, 2 * column + 1), odd));
      }
      float total;
      memcpy(&total, &tiles[sums][row][4 * column], sizeof(total));
      total = normal_or_zero(normal_or_zero(total) + normal_or_zero(even + odd));
      memcpy(&tiles[sums][row][4 * column], &total, sizeof(total));
    }
  }
}

static inline void tile_memory_barrier() {}

#else

// A constant, as a configuration set up at run time may be dropped: compilers do not know that all of it is read.
alignas(64) static const uint8_t kTileConfiguration[64] = {
    1,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,   // palette 1
    64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,  64, 0,   // bytes in a row of each tile, 16 bits each
    0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,   //
    16, 16, 16, 16, 16, 16, 16, 16, 0,  0,  0,  0,  0,  0,  0,  0};  // rows of each tile

static inline void tile_configure() { _tile_loadconfig(kTileConfiguration); }
static inline void tile_release() { _tile_release(); }
#define tile_zero(tile) _tile_zero(tile)
#define tile_load(tile, from, stride) _tile_loadd(tile, from, stride)
#define tile_store(tile, to, stride) _tile_stored(tile, to, stride)
#define tile_multiply_add(sums, a, b) _tile_dpbf16ps(sums, a, b)

// GCC's tile loads do not say that they read memory: what was stored before must be there.
static inline void tile_memory_barrier() { __asm__ volatile("" ::: "memory"); }

#endif

}  // namespace mindgen::MG_ISA
