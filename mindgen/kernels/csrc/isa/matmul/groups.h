// The product of rows sorted by group, each group with weights of its own.
#pragma once
#include "matmul.h"

namespace mindgen::MG_ISA {

// The rows of group e end at ends[e], where those of the next begin.
struct Groups {
  const int64_t* ends;
  int64_t count;

  int64_t start(int64_t e) const { return e > 0 ? ends[e - 1] : 0; }
  int64_t rows(int64_t e) const { return ends[e] - start(e); }
  int64_t most_rows() const {
    int64_t most = 0;
    for (int64_t e = 0; e < count; e++) most = larger(most, rows(e));
    return most;
  }
  int64_t all_rows() const { return count > 0 ? ends[count - 1] : 0; }

  // The rows of group e of a matrix of all rows.
  template <class T>
  Matrix<T> of(const Matrix<T>& x, int64_t e) const {
    return {x.at(start(e), 0), rows(e), x.depth, x.step, x.transposed};
  }
};

// w (groups, N, K), or (groups, K, N) when transposed; the epilogue is of all rows.
template <class T, class Y>
static void multiply_groups(const Groups& groups, const Matrix<T>& x, const T* w, bool transposed,
                            const Epilogue<T, Y>& epilogue) {
  const int64_t N = epilogue.columns, K = x.depth;
  const int threads = useful_threads(groups.all_rows() * N * K);
  const auto weights = [&](int64_t e) { return whole_matrix(w + e * N * K, N, K, transposed); };
  const auto rows = [&](int64_t e) { return epilogue.from_row(groups.start(e)); };
  if (!transposed) {
    for (int64_t e = 0; e < groups.count; e++) {
      if (groups.rows(e) > 0) multiply(groups.of(x, e), weights(e), rows(e), threads);
    }
    return;
  }
  // Few columns, as in a low-rank adapter, leave the rows to share out.
  const int64_t columns = ceil_divide(N, kSumColumns);
  const int64_t parts = smaller(ceil_divide(groups.most_rows(), kMaxSumRows), ceil_divide(4 * threads, columns));
  parallel_for(groups.count * parts * columns, threads, [&](int64_t i) {
    const int64_t e = i / (parts * columns), part = i / columns % parts, n = i % columns * kSumColumns;
    const int64_t step = round_up(ceil_divide(groups.rows(e), parts), kMaxSumRows), m = part * step;
    if (m >= groups.rows(e)) return;
    const Matrix<T> all = groups.of(x, e);
    const Matrix<T> inputs{all.at(m, 0), smaller(step, all.rows - m), all.depth, all.step, false};
    row_product(inputs, weights(e), rows(e).from_row(m), n, smaller(n + kSumColumns, N));
  });
}

}  // namespace mindgen::MG_ISA
