#include "dispatch.h"
#include "norm_row.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

template <class T>
void add_row(const T* x1, const T* x2, T* sum, int64_t H) {
  for (int64_t i = 0; i < H; i += kWidth) {
    store_upto(sum + i, load_upto(x1 + i, H - i) + load_upto(x2 + i, H - i), H - i);
  }
}

}  // namespace

int rms_norm(const void* x, const void* gamma, void* y, float* rstd, int64_t rows, int64_t H, float epsilon,
             mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(rows, H, [&](int64_t row) {
      const float scale = normalize_row((const T*)x + row * H, (const T*)gamma, (T*)y + row * H, H, epsilon);
      if (rstd) rstd[row] = scale;
    });
    return (int)MG_OK;
  });
}

int layer_norm(const void* x, const void* gamma, const void* beta, void* y, float* mean, float* rstd, int64_t rows,
               int64_t H, float epsilon, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(rows, H, [&](int64_t row) {
      const Moments moments = layer_normalize_row((const T*)x + row * H, (const T*)gamma, (const T*)beta,
                                                  (T*)y + row * H, H, epsilon);
      if (mean) mean[row] = moments.mean;
      if (rstd) rstd[row] = moments.rstd;
    });
    return (int)MG_OK;
  });
}

int add_rms_norm(const void* x1, const void* x2, const void* gamma, void* y, float* rstd, void* sum, int64_t rows,
                 int64_t H, float epsilon, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_rows(rows, H, [&](int64_t row) {
      T* row_sum = (T*)sum + row * H;
      add_row((const T*)x1 + row * H, (const T*)x2 + row * H, row_sum, H);
      const float scale = normalize_row(row_sum, (const T*)gamma, (T*)y + row * H, H, epsilon);
      if (rstd) rstd[row] = scale;
    });
    return (int)MG_OK;
  });
}

}  // namespace mindgen::MG_ISA
