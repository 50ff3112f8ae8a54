#include "groups.h"

namespace mindgen::MG_ISA {

int grouped_matmul(const void* x, const void* w, const int64_t* group_ends, void* y, int64_t T, int64_t E, int64_t K,
                   int64_t N, bool transpose_w, mg_dtype dtype) {
  for_dtype(dtype, [&](auto type) {
    using Element = decltype(type);
    const Groups groups{group_ends, E};
    multiply_groups(groups, whole_matrix((const Element*)x, T, K, false), (const Element*)w, !transpose_w,
                    Epilogue<Element>{(Element*)y, N, N});
    memset((Element*)y + groups.all_rows() * N, 0, (T - groups.all_rows()) * N * sizeof(Element));
  });
  return MG_OK;
}

}  // namespace mindgen::MG_ISA
