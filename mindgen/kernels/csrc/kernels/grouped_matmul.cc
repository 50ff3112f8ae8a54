#include "matmul.h"

namespace mindgen::MG_ISA {
namespace {

template <class T>
struct Groups {
  const T* x;
  const T* w;
  T* y;
  const int64_t* ends;
  int64_t K, N;
  bool transpose_w;

  int64_t start(int64_t e) const { return e > 0 ? ends[e - 1] : 0; }
  int64_t rows(int64_t e) const { return ends[e] - start(e); }

  void multiply_panels(int64_t e, int threads) const {
    const Matrix<T> inputs{x + start(e) * K, rows(e), K, false}, weights{w + e * K * N, N, K, !transpose_w};
    panel_product<T>(inputs, weights, nullptr, y + start(e) * N, threads);
  }

  void multiply_few(int64_t e) const {
    const T *inputs = x + start(e) * K, *weights = w + e * K * N;
    T* outputs = y + start(e) * N;
    if (!transpose_w) return row_product<T>(inputs, weights, nullptr, outputs, rows(e), K, N, 0, N);
    const auto* prepared = prepare_inputs(inputs, rows(e), K);
    dot_product<T>(rows(e), prepared, weights, nullptr, outputs, N, K, 0, N);
  }
};

template <class T>
void multiply_groups(const Groups<T>& groups, int64_t count) {
  const int64_t rows = count > 0 ? groups.ends[count - 1] : 0;
  const int threads = useful_threads(rows * groups.K * groups.N);
  int64_t large = 0;
  for (int64_t e = 0; e < count; e++) large += groups.rows(e) >= kManyRows;
  const bool share_large = large < threads;  // all threads to each large group, before the others
  for (int64_t e = 0; e < count && share_large; e++) {
    if (groups.rows(e) >= kManyRows) groups.multiply_panels(e, threads);
  }
  parallel_for(count, threads, [&](int64_t e) {
    if (groups.rows(e) < kManyRows) {
      groups.multiply_few(e);
    } else if (!share_large) {
      groups.multiply_panels(e, 1);
    }
  });
}

}  // namespace

int grouped_matmul(const void* x, const void* w, const int64_t* group_ends, void* y, int64_t T, int64_t E, int64_t K,
                   int64_t N, bool transpose_w, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    multiply_groups<Element>({(const Element*)x, (const Element*)w, (Element*)y, group_ends, K, N, transpose_w}, E);
    const int64_t rows = E > 0 ? group_ends[E - 1] : 0;
    memset((Element*)y + rows * N, 0, (T - rows) * N * sizeof(Element));
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
