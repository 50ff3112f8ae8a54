// The updates of low-rank adapters: x a into a buffer of float32, then its product with b added to y.
#include <algorithm>
#include <type_traits>

#include "groups.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kUpdateColumns = 512;  // of a block

// Whole levels are summed up one after the other, rank after rank, so that it makes no difference where levels end.
template <class T, class Y>
struct Adapters {
  Matrix<T> x;    // (T, K)
  Groups groups;  // of the first level, which has all
  const mg_lora_level* levels;
  int num_levels;
  const int64_t* sizes;
  int parts;
  Y* y;  // (T, sum of sizes)

  int64_t columns(int l) const { return parts * levels[l].rank; }  // of x a
  int64_t low_columns() const {
    int64_t count = 0;
    for (int l = 0; l < num_levels; l++) count += columns(l);
    return count;
  }
  int64_t y_columns() const {
    int64_t count = 0;
    for (int p = 0; p < parts; p++) count += sizes[p];
    return count;
  }
  int64_t blocks_of(int p) const { return ceil_divide(sizes[p], kUpdateColumns); }
  int64_t blocks() const {
    int64_t count = 0;
    for (int p = 0; p < parts; p++) count += blocks_of(p);
    return count;
  }

  // Whether a level has anything to add: others only fill a slot that adapters of more ranks or modules share.
  bool has_update(int l, int64_t e) const {
    constexpr int64_t kPiece = 256;
    if (e >= levels[l].E) return false;
    const int64_t bytes = x.depth * columns(l) * sizeof(T);
    const uint8_t* from = (const uint8_t*)levels[l].a + e * bytes;
    for (int64_t at = 0; at < bytes; at += kPiece) {
      uint8_t any = 0;
      for (int64_t i = at; i < smaller(at + kPiece, bytes); i++) any |= from[i];
      if (any) return true;
    }
    return false;
  }
  void find_updates(int64_t e, bool* has) const {
    for (int l = 0; l < num_levels; l++) has[l] = groups.rows(e) > 0 && has_update(l, e);
  }

  // low (rows, low columns) = x a of rows of group e, for the levels that it has.
  void multiply_down(const Matrix<T>& rows, int64_t e, const bool* has, float* low) const {
    const int64_t step = low_columns();
    for (int l = 0; l < num_levels; low += columns(l++)) {
      if (!has[l]) continue;
      const int64_t N = columns(l);
      const T* a = (const T*)levels[l].a + e * x.depth * N;
      row_product(rows, whole_matrix(a, N, x.depth, true), Epilogue<T, float>{low, step, N}, 0, N);
    }
  }

  // A block of columns of y of group e += low b.
  void update(int64_t e, const bool* has, const float* low, int64_t block) const {
    int64_t first = 0;
    int p = 0;
    for (; block >= blocks_of(p); first += sizes[p++]) block -= blocks_of(p);
    const int64_t begin = block * kUpdateColumns, end = smaller(begin + kUpdateColumns, sizes[p]);
    const int64_t step = y_columns(), rows = groups.rows(e);
    Y* to = y + groups.start(e) * step + first;
    for (int64_t n = begin; n < end; n += kSumColumns) {
      const int64_t count = smaller(kSumColumns, end - n);
      for (int64_t m = 0; m < rows; m += kMaxSumRows) {
        const Block at{e, p, n, count, has, low + m * low_columns(), to + m * step + n};
        switch (smaller(rows - m, kMaxSumRows)) {
          case 1: multiply_up<1>(at); break;
          case 2: multiply_up<2>(at); break;
          case 3: multiply_up<3>(at); break;
          default: multiply_up<kMaxSumRows>(at);
        }
      }
    }
  }

  // Few regions for threads to meet, if the groups can be shared out evenly.
  void run_whole_groups(int threads) const {
    parallel_for(groups.count, threads, [&](int64_t e) {
      bool has[MG_MAX_LORA_LEVELS];
      find_updates(e, has);
      if (std::none_of(has, has + num_levels, [](bool each) { return each; })) return;
      float* low = (float*)scratch(kScratchLowRank, groups.rows(e) * low_columns() * sizeof(float));
      multiply_down(groups.of(x, e), e, has, low);
      for (int64_t block = 0; block < blocks(); block++) update(e, has, low, block);
    });
  }

  void run_pieces_of_groups(int threads) const {
    const int64_t step = low_columns(), blocks_of_group = blocks();
    float* low = (float*)scratch(kScratchLowRank, groups.all_rows() * step * sizeof(float));
    bool* has = (bool*)scratch(kScratchFlags, groups.count * num_levels);
    parallel_for(groups.count, threads, [&](int64_t e) { find_updates(e, has + e * num_levels); });
    const int64_t parts_of_group = smaller(ceil_divide(groups.most_rows(), kMaxSumRows), 4 * threads);
    parallel_for(groups.count * parts_of_group, threads, [&](int64_t i) {
      const int64_t e = i / parts_of_group, rows = groups.rows(e);
      const int64_t size = round_up(ceil_divide(rows, parts_of_group), kMaxSumRows), m = i % parts_of_group * size;
      if (m >= rows) return;
      const Matrix<T> all = groups.of(x, e);
      const Matrix<T> some{all.at(m, 0), smaller(size, rows - m), all.depth, all.step, false};
      multiply_down(some, e, has + e * num_levels, low + (groups.start(e) + m) * step);
    });
    parallel_for(groups.count * blocks_of_group, threads, [&](int64_t i) {
      const int64_t e = i / blocks_of_group;
      update(e, has + e * num_levels, low + groups.start(e) * step, i % blocks_of_group);
    });
  }

 private:
  struct Block {
    int64_t e;
    int p;
    int64_t n, count;  // columns
    const bool* has;
    const float* low;
    Y* y;
  };

  template <int ROWS>
  void multiply_up(const Block& at) const {
    if (at.count > 2 * kWidth) return multiply_up<ROWS, 4>(at);
    return at.count > kWidth ? multiply_up<ROWS, 2>(at) : multiply_up<ROWS, 1>(at);
  }

  template <int ROWS, int VECTORS>
  void multiply_up(const Block& at) const {
    const int64_t low_step = low_columns(), y_step = y_columns(), size = sizes[at.p];
    floatv sums[ROWS][VECTORS] = {};
    const float* low = at.low;
    for (int l = 0; l < num_levels; low += columns(l++)) {
      if (!at.has[l]) continue;
      const int64_t rank = levels[l].rank;
      const float* inputs = low + at.p * rank;
      const T* weights = (const T*)levels[l].b[at.p] + at.e * rank * size + at.n;
      for (int64_t k = 0; k < rank; k++, weights += size) {
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
          const int64_t present = at.count - v * kWidth;
          if (present <= 0) break;
          const floatv weight = load_upto(weights + v * kWidth, present);
#pragma GCC unroll 4
          for (int row = 0; row < ROWS; row++) sums[row][v] = sums[row][v] + inputs[row * low_step + k] * weight;
        }
      }
    }
#pragma GCC unroll 4
    for (int row = 0; row < ROWS; row++) {
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; v++) {
        const int64_t present = at.count - v * kWidth;
        if (present <= 0) break;
        Y* to = at.y + row * y_step + v * kWidth;
        store_upto(to, sums[row][v] + load_upto(to, present), present);
      }
    }
  }
};

}  // namespace

int add_lora(const void* x, int64_t x_step, const mg_lora_level* levels, int num_levels, const int64_t* sizes,
             int num_parts, void* y, int64_t T, int64_t K, mg_dtype dtype, mg_dtype y_dtype) {
  for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    const auto run = [&](auto* outputs) {
      const Groups groups{levels[0].group_ends, levels[0].E};
      const Adapters<Element, std::remove_pointer_t<decltype(outputs)>> adapters{
          {(const Element*)x, T, K, x_step, false}, groups, levels, num_levels, sizes, num_parts, outputs};
      const int64_t low_columns = adapters.low_columns();
      const int threads = useful_threads(groups.all_rows() * (low_columns * K + low_columns / num_parts *
                                                              adapters.y_columns()));
      if (threads == 1 || groups.most_rows() * 2 * threads <= groups.all_rows()) {
        adapters.run_whole_groups(threads);
      } else {
        adapters.run_pieces_of_groups(threads);
      }
    };
    if (y_dtype == dtype) return run((Element*)y);
    run((float*)y);
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
