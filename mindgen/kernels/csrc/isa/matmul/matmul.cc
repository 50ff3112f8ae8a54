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

// f(x, w) with an element of each type. Weights of bfloat16 also serve inputs of float32: they take half the memory.
template <class F>
void for_dtypes(mg_dtype dtype, mg_dtype w_dtype, const F& f) {
#if !defined(MG_TILE_EMULATION)
  if (dtype == MG_FLOAT32 && w_dtype == MG_BFLOAT16) return f(float(), bfloat16());
#endif
  (void)w_dtype;
  for_dtype(dtype, [&](auto type) { f(type, type); });
}

template <class W, class X, class Y>
void multiply_weights(const Matrix<X>& x, const void* w, int64_t weight_rows, const Epilogue<X, Y>& epilogue) {
  multiply_rows(x, whole_matrix((const W*)w, weight_rows, x.depth, false), epilogue,
                useful_threads(x.rows * weight_rows * x.depth));
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
           int64_t N, int64_t K, mg_dtype dtype, mg_dtype w_dtype, mg_dtype y_dtype) {
  for_dtypes(dtype, w_dtype, [&](auto x_type, auto w_type) {
    using X = decltype(x_type);
    const Matrix<X> inputs{(const X*)x, M, K, x_step, false};
    const auto write_as = [&](auto y_type) {
      using Y = decltype(y_type);
      const Epilogue<X, Y> epilogue{(Y*)y, N, N, (const X*)bias, (const Y*)residual};
      multiply_weights<decltype(w_type)>(inputs, w, N, epilogue);
    };
    y_dtype == dtype ? write_as(X()) : write_as(float());
  });
  return MG_OK;
}

int linear_swiglu(const void* x, int64_t x_step, const void* w, const void* bias, void* y, int64_t M, int64_t N,
                  int64_t K, mg_dtype dtype, mg_dtype w_dtype) {
  for_dtypes(dtype, w_dtype, [&](auto x_type, auto w_type) {
    using X = decltype(x_type);
    const Epilogue<X> epilogue{(X*)y, N, N, (const X*)bias, nullptr, true};
    multiply_weights<decltype(w_type)>(Matrix<X>{(const X*)x, M, K, x_step, false}, w, 2 * N, epilogue);
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
