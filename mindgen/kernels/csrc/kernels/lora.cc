// The updates of low-rank adapters: x a into a buffer of float32, then its product with b added to y.
#include "groups.h"

namespace mindgen::MG_ISA {
namespace {

constexpr int64_t kUpdateColumns = 512;  // of a task

// Rows of y += low (T, K) b (groups, K, size), where y (T, size) is some of the columns of a matrix.
template <class T>
struct Update {
  const Groups& groups;
  Matrix<float> low;
  const T* b;
  int64_t size;
  T* y;
  int64_t y_step;

  int64_t tasks_per_group() const { return ceil_divide(size, kUpdateColumns); }
  int64_t tasks() const { return groups.count * tasks_per_group(); }
  void run(int64_t task) const {
    const int64_t e = task / tasks_per_group(), n = task % tasks_per_group() * kUpdateColumns;
    const Epilogue<T> add{y, y_step, size, nullptr, y};
    row_product(groups.of(low, e), whole_matrix(b + e * low.depth * size, size, low.depth, true),
                add.from_row(groups.start(e)), n, smaller(n + kUpdateColumns, size));
  }
};

template <class T>
void add_updates(const Groups& groups, const Matrix<T>& x, const T* a, const void* const* b, const int64_t* sizes,
                 int num_parts, int64_t rank, T* y) {
  const int64_t low_columns = num_parts * rank;
  float* low = (float*)scratch(kScratchLowRank, x.rows * low_columns * sizeof(float));  // (T, parts * rank)
  multiply_groups(groups, x, a, true, Epilogue<T, float>{low, low_columns, low_columns});

  int64_t y_step = 0, tasks = 0;
  for (int p = 0; p < num_parts; p++) y_step += sizes[p];
  const auto update = [&](int p, int64_t first_column) {
    const Matrix<float> low_part{low + p * rank, x.rows, rank, low_columns, false};
    return Update<T>{groups, low_part, (const T*)b[p], sizes[p], y + first_column, y_step};
  };
  for (int p = 0; p < num_parts; p++) tasks += update(p, 0).tasks();
  parallel_for(tasks, useful_threads(groups.all_rows() * rank * y_step), [&](int64_t task) {
    int p = 0;
    int64_t column = 0;
    for (; task >= update(p, column).tasks(); column += sizes[p++]) task -= update(p, column).tasks();
    update(p, column).run(task);
  });
}

}  // namespace

int add_lora(const void* x, int64_t x_step, const void* a, const void* const* b, const int64_t* sizes, int num_parts,
             const int64_t* group_ends, void* y, int64_t T, int64_t E, int64_t K, int64_t rank, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    const Groups groups{group_ends, E};
    if (groups.all_rows() == 0) return;
    add_updates(groups, Matrix<Element>{(const Element*)x, T, K, x_step, false}, (const Element*)a, b, sizes,
                num_parts, rank, (Element*)y);
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
