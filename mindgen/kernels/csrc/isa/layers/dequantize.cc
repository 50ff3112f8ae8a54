// Weights out of the blocks of GGUF. Layouts as in ggml's ggml-common.h, which all files follow: a block's scales are
// float16, in little endian.
#include "dispatch.h"
#include "simd.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

float half(const uint8_t* at) {
  float16 values[kWidth] = {};
  memcpy(values, at, 2);
  return load(values)[0];
}

// d (2), 16 bytes: the low halves are the first 16 elements, the high ones the others.
struct Q4_0 {
  static constexpr int kElements = 32, kBytes = 18;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block);
    for (int i = 0; i < 16; i++) {
      y[i] = d * ((block[2 + i] & 15) - 8);
      y[i + 16] = d * ((block[2 + i] >> 4) - 8);
    }
  }
};

// d (2), m (2), 16 bytes
struct Q4_1 {
  static constexpr int kElements = 32, kBytes = 20;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block), m = half(block + 2);
    for (int i = 0; i < 16; i++) {
      y[i] = d * (block[4 + i] & 15) + m;
      y[i + 16] = d * (block[4 + i] >> 4) + m;
    }
  }
};

// d (2), fifth bits (4), 16 bytes
struct Q5_0 {
  static constexpr int kElements = 32, kBytes = 22;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block);
    uint32_t high;
    memcpy(&high, block + 2, 4);
    for (int i = 0; i < 16; i++) {
      y[i] = d * ((int)((block[6 + i] & 15) | (high >> i & 1) << 4) - 16);
      y[i + 16] = d * ((int)((block[6 + i] >> 4) | (high >> (i + 16) & 1) << 4) - 16);
    }
  }
};

// d (2), m (2), fifth bits (4), 16 bytes
struct Q5_1 {
  static constexpr int kElements = 32, kBytes = 24;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block), m = half(block + 2);
    uint32_t high;
    memcpy(&high, block + 4, 4);
    for (int i = 0; i < 16; i++) {
      y[i] = d * (int)((block[8 + i] & 15) | (high >> i & 1) << 4) + m;
      y[i + 16] = d * (int)((block[8 + i] >> 4) | (high >> (i + 16) & 1) << 4) + m;
    }
  }
};

// d (2), 32 bytes
struct Q8_0 {
  static constexpr int kElements = 32, kBytes = 34;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block);
    for (int i = 0; i < 32; i++) y[i] = d * (int8_t)block[2 + i];
  }
};

// Scale and minimum, of 6 bits each, of sub-block j of 8: packed in 12 bytes.
void scale_and_minimum(const uint8_t* scales, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = scales[j] & 63;
    minimum = scales[j + 4] & 63;
  } else {
    scale = (scales[j + 4] & 15) | (scales[j - 4] >> 6) << 4;
    minimum = (scales[j + 4] >> 4) | (scales[j] >> 6) << 4;
  }
}

// d (2), dmin (2), scales (12), 128 bytes: of each 32 the low halves are a sub-block of 32, the high ones the next.
struct Q4_K {
  static constexpr int kElements = 256, kBytes = 144;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block), dmin = half(block + 2);
    const uint8_t* quants = block + 16;
    for (int j = 0; j < 8; j++) {
      int scale, minimum;
      scale_and_minimum(block + 4, j, scale, minimum);
      const float factor = d * scale, m = dmin * minimum;
      const uint8_t* from = quants + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; i++) y[j * 32 + i] = factor * (from[i] >> shift & 15) - m;
    }
  }
};

// d (2), dmin (2), scales (12), fifth bits (32), 128 bytes: bit j of a byte of the fifth bits is sub-block j's.
struct Q5_K {
  static constexpr int kElements = 256, kBytes = 176;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block), dmin = half(block + 2);
    const uint8_t *high = block + 16, *quants = block + 48;
    for (int j = 0; j < 8; j++) {
      int scale, minimum;
      scale_and_minimum(block + 4, j, scale, minimum);
      const float factor = d * scale, m = dmin * minimum;
      const uint8_t* from = quants + j / 2 * 32;
      const int shift = j % 2 * 4;
      for (int i = 0; i < 32; i++) {
        y[j * 32 + i] = factor * ((from[i] >> shift & 15) | (high[i] >> j & 1) << 4) - m;
      }
    }
  }
};

// Low halves (128), two high bits (64), scales of 16 elements each (16, int8), d (2)
struct Q6_K {
  static constexpr int kElements = 256, kBytes = 210;
  static void unpack(const uint8_t* block, float* y) {
    const float d = half(block + 208);
    for (int n = 0; n < 2; n++) {  // halves of the block
      const uint8_t *low = block + n * 64, *high = block + 128 + n * 32;
      const int8_t* scales = (const int8_t*)block + 192 + n * 8;
      for (int quarter = 0; quarter < 4; quarter++) {
        const uint8_t* from = low + quarter % 2 * 32;
        for (int i = 0; i < 32; i++) {
          const int bits = (from[i] >> quarter / 2 * 4 & 15) | (high[i] >> quarter * 2 & 3) << 4;
          y[n * 128 + quarter * 32 + i] = d * scales[quarter * 2 + i / 16] * (bits - 32);
        }
      }
    }
  }
};

template <class Block>
int dequantize_blocks(const void* x, void* y, mg_dtype dtype, int64_t count) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    // Pieces are whole blocks.
    for_pieces(count, [&](int64_t first, int64_t end) {
      float values[Block::kElements];
      const uint8_t* block = (const uint8_t*)x + first / Block::kElements * Block::kBytes;
      for (int64_t at = first; at < end; at += Block::kElements, block += Block::kBytes) {
        Block::unpack(block, values);
        for (int i = 0; i < Block::kElements; i += kWidth) store((T*)y + at + i, load(values + i));
      }
    });
    return (int)MG_OK;
  });
}

}  // namespace

int dequantize(const void* x, mg_block_type type, void* y, mg_dtype dtype, int64_t count) {
  switch (type) {
    case MG_Q4_0: return dequantize_blocks<Q4_0>(x, y, dtype, count);
    case MG_Q4_1: return dequantize_blocks<Q4_1>(x, y, dtype, count);
    case MG_Q5_0: return dequantize_blocks<Q5_0>(x, y, dtype, count);
    case MG_Q5_1: return dequantize_blocks<Q5_1>(x, y, dtype, count);
    case MG_Q8_0: return dequantize_blocks<Q8_0>(x, y, dtype, count);
    case MG_Q4_K: return dequantize_blocks<Q4_K>(x, y, dtype, count);
    case MG_Q5_K: return dequantize_blocks<Q5_K>(x, y, dtype, count);
    default: return dequantize_blocks<Q6_K>(x, y, dtype, count);
  }
}

}  // namespace mindgen::MG_ISA
