// Decode attention's reads by its own threads, without its arithmetic: attention_bounds.py compiles it.
#include <stdint.h>

#include "parallel.h"

namespace {

typedef uint64_t Line __attribute__((vector_size(64)));

constexpr int64_t kTaskKeys = 512;  // as kChunkKeys
constexpr int64_t kStepKeys = 64;   // as kFewRowsTileKeys
constexpr int64_t kBlockSize = BLOCK_SIZE;  // divides a step
constexpr int64_t kHeadBytes = HEAD_BYTES;  // whole lines

struct Cache {
  const char* parts[2];  // keys, values
  const int32_t* block_table;
  int64_t num_blocks;  // all full
  int64_t num_heads;

  int64_t num_tasks() const { return (num_blocks * kBlockSize + kTaskKeys - 1) / kTaskKeys; }

  const char* at(int64_t stream, int64_t block) const {
    return parts[stream % 2] + (block_table[block] * kBlockSize * num_heads + stream / 2) * kHeadBytes;
  }

  // Of each step the keys and the values of one head after the other, the next of which are fetched meanwhile.
  void read_task(int64_t task) const {
    constexpr int64_t task_blocks = kTaskKeys / kBlockSize, step_blocks = kStepKeys / kBlockSize;
    const int64_t first = task * task_blocks, end = smaller(first + task_blocks, num_blocks);
    for (int64_t step = first; step < end; step += step_blocks) {
      for (int64_t stream = 0; stream < 2 * num_heads; stream++) {
        const bool is_last = stream + 1 == 2 * num_heads;
        for (int64_t block = step; block < smaller(step + step_blocks, end); block++) {
          const int64_t next = is_last && block + step_blocks < end ? block + step_blocks : block;
          read_head(at(stream, block), at(is_last ? 0 : stream + 1, next));
        }
      }
    }
  }

 private:
  static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

  // A head's part of a block.
  void read_head(const char* from, const char* ahead) const {
    Line sum = {};
    const int64_t step = num_heads * kHeadBytes;
    for (int64_t key = 0; key < kBlockSize; key++, from += step, ahead += step) {
      for (int64_t i = 0; i < kHeadBytes; i += sizeof(Line)) {
        __builtin_prefetch(ahead + i);
        sum ^= *(const Line*)(from + i);
        __asm__ volatile("" : "+v"(sum) : : "memory");  // keeps the compiler from fetching first, and all at once
      }
    }
  }
};

}  // namespace

extern "C" {

void read_blocks(const char* keys, const char* values, const int32_t* block_table, int64_t num_blocks,
                 int64_t num_heads, int threads) {
  const Cache cache{{keys, values}, block_table, num_blocks, num_heads};
  mindgen::parallel_for(cache.num_tasks(), threads, [&](int64_t task) { cache.read_task(task); });
}

void do_nothing(int64_t tasks, int threads) {
  mindgen::parallel_for(tasks, threads, [](int64_t) {});
}
}
