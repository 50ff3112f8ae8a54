#include "matmul.h"

namespace mindgen::MG_ISA {
namespace {

template <class T>
void multiply_batch(const T* x, const T* w, const T* bias, T* y, int64_t batch, int64_t M, int64_t N, int64_t K,
                    bool transpose_x, bool transpose_w) {
  const int threads = useful_threads(batch * M * N * K);
  const bool whole_products = batch >= threads;  // a product to a thread, or all threads to each product
  parallel_for(batch, whole_products ? threads : 1, [&](int64_t b) {
    multiply(by_rows(whole_matrix(x + b * M * K, M, K, transpose_x)),
             whole_matrix(w + b * N * K, N, K, !transpose_w), Epilogue<T>{y + b * M * N, N, N, bias},
             whole_products && batch > 1 ? 1 : threads);
  });
}

template <class T, class Y>
void multiply_weights(const void* x, int64_t x_step, const void* w, int64_t weight_rows, int64_t M, int64_t K,
                      const Epilogue<T, Y>& epilogue) {
  multiply(Matrix<T>{(const T*)x, M, K, x_step, false}, whole_matrix((const T*)w, weight_rows, K, false), epilogue,
           useful_threads(M * weight_rows * K));
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

int linear(const void* x, int64_t x_step, const void* w, const void* bias, const void* residual, void* y, int64_t M,
           int64_t N, int64_t K, mg_dtype dtype, mg_dtype y_dtype) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    const auto write_as = [&](auto y_type) {
      using Y = decltype(y_type);
      multiply_weights(x, x_step, w, N, M, K, Epilogue<T, Y>{(Y*)y, N, N, (const T*)bias, (const Y*)residual});
    };
    y_dtype == dtype ? write_as(T()) : write_as(float());
  });
  return MG_OK;
}

int linear_swiglu(const void* x, int64_t x_step, const void* w, const void* bias, void* y, int64_t M, int64_t N,
                  int64_t K, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    multiply_weights(x, x_step, w, 2 * N, M, K, Epilogue<T>{(T*)y, N, N, (const T*)bias, nullptr, true});
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
