#include "matmul.h"

namespace mindgen::MG_ISA {
namespace {

// y (M, N) = x (M, K) w (N, K)^T + bias (N), either possibly stored transposed.
template <class T>
void multiply(const Matrix<T>& x, const Matrix<T>& w, const T* bias, T* y, int threads) {
  const int64_t M = x.rows, N = w.rows, K = x.depth;
  if (x.transposed || M >= kManyRows) return panel_product(x, w, bias, y, threads);
  if (w.transposed) {
    parallel_for(ceil_divide(N, kSumColumns), threads, [&](int64_t i) {
      const int64_t n = i * kSumColumns;
      row_product(x.data, w.data, bias, y, M, K, N, n, smaller(n + kSumColumns, N));
    });
  } else {
    const auto* inputs = prepare_inputs(x.data, M, K);
    parallel_for(ceil_divide(N, kDotColumns), threads, [&](int64_t i) {
      const int64_t n = i * kDotColumns;
      dot_product(M, inputs, w.data, bias, y, N, K, n, smaller(n + kDotColumns, N));
    });
  }
}

template <class T>
void multiply_batch(const T* x, const T* w, const T* bias, T* y, int64_t batch, int64_t M, int64_t N, int64_t K,
                    bool transpose_x, bool transpose_w) {
  const int threads = useful_threads(batch * M * N * K);
  const bool whole_products = batch >= threads;  // a product to a thread, or all threads to each product
  parallel_for(batch, whole_products ? threads : 1, [&](int64_t b) {
    multiply(Matrix<T>{x + b * M * K, M, K, transpose_x}, Matrix<T>{w + b * N * K, N, K, !transpose_w}, bias,
             y + b * M * N, whole_products && batch > 1 ? 1 : threads);
  });
}

}  // namespace

int matmul(const void* x, const void* w, const void* bias, void* y, int64_t batch, int64_t M, int64_t N, int64_t K,
           bool transpose_x, bool transpose_w, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    multiply_batch((const T*)x, (const T*)w, (const T*)bias, (T*)y, batch, M, N, K, transpose_x, transpose_w);
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
