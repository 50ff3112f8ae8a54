// The updates of low-rank adapters: x a into a buffer of float32, then its product with b added to y.
#include "groups.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kUpdateColumns = 512;  // of a block

template <class T>
struct Adapters {
  Groups groups;
  const T* a;            // (groups, K, parts * rank)
  const void* const* b;  // of each part (groups, rank, size)
  const int64_t* sizes;
  int parts;
  int64_t rank;
  T* y;  // (T, sum of sizes)

  // Whether it has anything to add: others only fill a slot that adapters of other modules share.
  bool has_update(int64_t e, int64_t depth) const {
    constexpr int64_t kPiece = 256;
    const uint8_t* from = (const uint8_t*)(a + e * depth * low_columns());
    const int64_t bytes = depth * low_columns() * sizeof(T);
    for (int64_t at = 0; at < bytes; at += kPiece) {
      uint8_t any = 0;
      for (int64_t i = at; i < smaller(at + kPiece, bytes); i++) any |= from[i];
      if (any) return true;
    }
    return false;
  }

  int64_t low_columns() const { return parts * rank; }
  int64_t y_columns() const {
    int64_t columns = 0;
    for (int p = 0; p < parts; p++) columns += sizes[p];
    return columns;
  }

  int64_t blocks_of(int p) const { return ceil_divide(sizes[p], kUpdateColumns); }
  int64_t blocks() const {
    int64_t count = 0;
    for (int p = 0; p < parts; p++) count += blocks_of(p);
    return count;
  }

  // A block of columns of y of group e += low (rows of the group, parts * rank) b.
  void update(int64_t e, const float* low, int64_t block) const {
    int64_t first = 0;
    int p = 0;
    for (; block >= blocks_of(p); first += sizes[p++]) block -= blocks_of(p);
    const int64_t size = sizes[p], step = y_columns(), n = block * kUpdateColumns;
    T* part_y = y + groups.start(e) * step + first;
    row_product(Matrix<float>{low + p * rank, groups.rows(e), rank, low_columns(), false},
                whole_matrix((const T*)b[p] + e * rank * size, size, rank, true),
                Epilogue<T>{part_y, step, size, nullptr, part_y, false, true}, n, smaller(n + kUpdateColumns, size));
  }

  // Few regions for threads to meet, if the groups can be shared out evenly.
  void run_whole_groups(const Matrix<T>& x, int threads) const {
    parallel_for(groups.count, threads, [&](int64_t e) {
      const int64_t columns = low_columns();
      if (groups.rows(e) == 0 || !has_update(e, x.depth)) return;
      float* low = (float*)scratch(kScratchLowRank, groups.rows(e) * columns * sizeof(float));
      multiply(groups.of(x, e), whole_matrix(a + e * x.depth * columns, columns, x.depth, true),
               Epilogue<T, float>{low, columns, columns}, 1);
      for (int64_t block = 0; block < blocks(); block++) update(e, low, block);
    });
  }

  void run_pieces_of_groups(const Matrix<T>& x, int threads) const {
    const int64_t columns = low_columns(), blocks_of_group = blocks();
    float* low = (float*)scratch(kScratchLowRank, groups.all_rows() * columns * sizeof(float));
    multiply_groups(groups, x, a, true, Epilogue<T, float>{low, columns, columns});
    parallel_for(groups.count * blocks_of_group, threads, [&](int64_t i) {
      const int64_t e = i / blocks_of_group;
      update(e, low + groups.start(e) * columns, i % blocks_of_group);
    });
  }
};

}  // namespace

int add_lora(const void* x, int64_t x_step, const void* a, const void* const* b, const int64_t* sizes, int num_parts,
             const int64_t* group_ends, void* y, int64_t T, int64_t E, int64_t K, int64_t rank, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    const Groups groups{group_ends, E};
    const Adapters<Element> adapters{groups, (const Element*)a, b, sizes, num_parts, rank, (Element*)y};
    const Matrix<Element> inputs{(const Element*)x, T, K, x_step, false};
    const int threads = useful_threads(groups.all_rows() * (adapters.low_columns() * K + rank * adapters.y_columns()));
    if (threads == 1 || groups.most_rows() * 2 * threads <= groups.all_rows()) {
      adapters.run_whole_groups(inputs, threads);
    } else {
      adapters.run_pieces_of_groups(inputs, threads);
    }
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
