#include <type_traits>

#include "dispatch.h"
#include "simd.h"
#include "threads.h"

namespace mindgen::MG_ISA {
namespace {

struct Add {
  template <class V>
  static V of(V a, V b) {
    return a + b;
  }
};

struct Multiply {
  template <class V>
  static V of(V a, V b) {
    return a * b;
  }
};

template <class T>
constexpr bool is_compute_type = std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

// One row for float32, bfloat16 and float16. A contiguous row may go with a repeated element (stride 0).
template <class Operation, class T>
void run_row(const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* y, int64_t count) {
  if (a_stride == 1 && b_stride == 1) {
    for (int64_t i = 0; i < count; i += kWidth) {
      store_upto(y + i, Operation::of(load_upto(a + i, count - i), load_upto(b + i, count - i)), count - i);
    }
  } else if (a_stride == 1 && b_stride == 0) {
    const floatv repeated = broadcast(to_float(*b));
    for (int64_t i = 0; i < count; i += kWidth) {
      store_upto(y + i, Operation::of(load_upto(a + i, count - i), repeated), count - i);
    }
  } else {
    for (int64_t i = 0; i < count; i++) {
      y[i] = from_float<T>(Operation::of(to_float(a[i * a_stride]), to_float(b[i * b_stride])));
    }
  }
}

// One row for the others. Integers come unsigned and are widened at least to unsigned, as only those wrap around.
template <class Operation, class T>
void run_plain_row(const T* a, int64_t a_stride, const T* b, int64_t b_stride, T* y, int64_t count) {
  using Wide = decltype(T() + 0u);
  if (a_stride == 1 && b_stride == 1) {
    for (int64_t i = 0; i < count; i++) y[i] = (T)Operation::of((Wide)a[i], (Wide)b[i]);
  } else {
    for (int64_t i = 0; i < count; i++) y[i] = (T)Operation::of((Wide)a[i * a_stride], (Wide)b[i * b_stride]);
  }
}

// The last of ndim >= 1 dimensions is the row; long rows are cut.
template <class Operation, class T>
void run(const T* a, const T* b, T* y, int ndim, const int64_t* shape, const int64_t* a_strides,
         const int64_t* b_strides) {
  const int64_t piece = kTaskElements, length = shape[ndim - 1];
  const int64_t pieces = (length + piece - 1) / piece;
  const int64_t a_stride = a_strides[ndim - 1], b_stride = b_strides[ndim - 1];
  int64_t rows = 1;
  for (int i = 0; i < ndim - 1; i++) rows *= shape[i];
  for_rows(rows * pieces, length < piece ? length : piece, [&](int64_t i) {
    const int64_t row = i / pieces, first = i % pieces * piece;
    const int64_t count = first + piece < length ? piece : length - first;
    int64_t a_start = first * a_stride, b_start = first * b_stride;
    for (int64_t dim = ndim - 2, rest = row; dim >= 0; rest /= shape[dim--]) {
      a_start += rest % shape[dim] * a_strides[dim];
      b_start += rest % shape[dim] * b_strides[dim];
    }
    T* out = y + row * length + first;
    if constexpr (!is_compute_type<T>) {
      run_plain_row<Operation>(a + a_start, a_stride, b + b_start, b_stride, out, count);
    } else if (a_stride == 0) {  // both operations commute
      run_row<Operation>(b + b_start, b_stride, a + a_start, a_stride, out, count);
    } else {
      run_row<Operation>(a + a_start, a_stride, b + b_start, b_stride, out, count);
    }
  });
}

template <class Operation>
int run_dtype(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
              const int64_t* b_strides, mg_dtype dtype) {
  const auto run_as = [&](auto type) {
    using T = decltype(type);
    run<Operation>((const T*)a, (const T*)b, (T*)y, ndim, shape, a_strides, b_strides);
    return (int)MG_OK;
  };
  switch (dtype) {
    case MG_FLOAT64: return run_as(double());
    case MG_BOOL:
    case MG_INT8:
    case MG_UINT8: return run_as(uint8_t());
    case MG_INT16:
    case MG_UINT16: return run_as(uint16_t());
    case MG_INT32:
    case MG_UINT32: return run_as(uint32_t());
    case MG_INT64:
    case MG_UINT64: return run_as(uint64_t());
    default: return for_dtype(dtype, run_as);
  }
}

// A piece of parts and y
template <class T>
void sum_piece(const void* const* parts, int num_parts, T* y, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; i += kWidth) {
    floatv total = load_upto((const T*)parts[0] + i, end - i);
    for (int part = 1; part < num_parts; part++) total += load_upto((const T*)parts[part] + i, end - i);
    store_upto(y + i, total, end - i);
  }
}

}  // namespace

int add(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
        const int64_t* b_strides, mg_dtype dtype) {
  return run_dtype<Add>(a, b, y, ndim, shape, a_strides, b_strides, dtype);
}

int mul(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
        const int64_t* b_strides, mg_dtype dtype) {
  return run_dtype<Multiply>(a, b, y, ndim, shape, a_strides, b_strides, dtype);
}

int sum(const void* const* parts, int num_parts, void* y, int64_t count, mg_dtype dtype) {
  return for_dtype(dtype, [&](auto type) {
    using T = decltype(type);
    for_pieces(count, [&](int64_t first, int64_t end) { sum_piece(parts, num_parts, (T*)y, first, end); });
    return (int)MG_OK;
  });
}

}  // namespace mindgen::MG_ISA
