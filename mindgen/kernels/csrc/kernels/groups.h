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
  for (int64_t e = 0; e < groups.count; e++) {
    if (groups.rows(e) < kManyRows<T>) continue;
    panel_product(groups.of(x, e), weights(e), epilogue.from_row(groups.start(e)), threads);
  }
  const int64_t chunks = ceil_divide(N, kDotColumns);
  parallel_for(groups.count * chunks, threads, [&](int64_t i) {
    const int64_t e = i / chunks, n = i % chunks * kDotColumns, end = smaller(n + kDotColumns, N);
    if (groups.rows(e) == 0 || groups.rows(e) >= kManyRows<T>) return;
    const Matrix<T> inputs = groups.of(x, e);
    const Epilogue<T, Y> rows = epilogue.from_row(groups.start(e));
    if (transposed) {
      row_product(inputs, weights(e), rows, n, end);
    } else {
      dot_product(inputs.rows, prepare_inputs(inputs), weights(e), rows, n, end);
    }
  });
}

}  // namespace mindgen::MG_ISA
