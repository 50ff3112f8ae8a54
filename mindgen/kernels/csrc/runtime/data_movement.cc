// Kernels that only move bytes: the compiler's memcpy is the same for every instruction set.
#include <string.h>

#include "dispatch.h"
#include "threads.h"

using namespace mindgen;

namespace {

constexpr int64_t kElementBytes = 16;  // copied in the time that arithmetic takes for an element

const char* bytes_at(const void* buffer, int64_t offset) { return static_cast<const char*>(buffer) + offset; }
char* bytes_at(void* buffer, int64_t offset) { return static_cast<char*>(buffer) + offset; }

template <class Index>
int gather_rows(const void* x, const Index* indices, void* y, int64_t outer, int64_t size, int64_t num_indices,
                int64_t inner) {
  for (int64_t i = 0; i < num_indices; i++) {
    if (indices[i] < -size || indices[i] >= size) {
      return fail("gather: index %lld is outside an axis of %lld", (long long)indices[i], (long long)size);
    }
  }
  for_rows(outer * num_indices, inner / kElementBytes, [&](int64_t row) {
    const int64_t index = indices[row % num_indices];
    const int64_t from = row / num_indices * size + (index < 0 ? index + size : index);
    memcpy(bytes_at(y, row * inner), bytes_at(x, from * inner), inner);
  });
  return MG_OK;
}

template <class Id>
int look_rows_up(const void* table, const Id* ids, void* y, int64_t size, int64_t num_ids, int64_t inner,
                 int64_t first_id) {
  for_rows(num_ids, inner / kElementBytes, [&](int64_t row) {
    const int64_t place = ids[row] - first_id;
    if (place >= 0 && place < size) {
      memcpy(bytes_at(y, row * inner), bytes_at(table, place * inner), inner);
    } else {
      memset(bytes_at(y, row * inner), 0, inner);
    }
  });
  return MG_OK;
}

// The sum of inner, or -1 after an error.
int64_t check_parts(const char* name, const void* whole, const void* const* parts, const int64_t* inner,
                    int num_parts, int64_t outer) {
  if (num_parts < 1 || outer < 0 || !parts || !inner) {
    fail("%s: %d parts of %lld rows, or a list is NULL", name, num_parts, (long long)outer);
    return -1;
  }
  int64_t width = 0;
  for (int i = 0; i < num_parts; i++) {
    if (inner[i] < 0 || (inner[i] > 0 && outer > 0 && (!parts[i] || !whole))) {
      fail("%s: part %d has %lld bytes per row, or a buffer is NULL", name, i, (long long)inner[i]);
      return -1;
    }
    width += inner[i];
  }
  return width;
}

}  // namespace

extern "C" {

int mg_reshape_and_cache(const void* key, const void* value, void* key_cache, void* value_cache,
                         const int32_t* slot_mapping, int64_t T, int64_t num_slots, int64_t width) {
  if (T < 0 || num_slots < 0 || width < 0) {
    return fail("reshape_and_cache: negative size: T %lld, num_slots %lld, width %lld", (long long)T,
                (long long)num_slots, (long long)width);
  }
  if (T == 0 || width == 0) return MG_OK;
  if (!key || !value || !key_cache || !value_cache || !slot_mapping) {
    return fail("reshape_and_cache: a buffer is NULL");
  }
  if (check_slots("reshape_and_cache", slot_mapping, T, num_slots) != MG_OK) return MG_ERROR;
  for_rows(T, 2 * width / kElementBytes, [&](int64_t t) {
    if (slot_mapping[t] == -1) return;
    const int64_t from = t * width, to = slot_mapping[t] * width;
    memcpy(bytes_at(key_cache, to), bytes_at(key, from), width);
    memcpy(bytes_at(value_cache, to), bytes_at(value, from), width);
  });
  return MG_OK;
}

int mg_gather(const void* x, const void* indices, mg_dtype index_dtype, void* y, int64_t outer, int64_t size,
              int64_t num_indices, int64_t inner) {
  if (outer < 0 || size < 0 || num_indices < 0 || inner < 0) {
    return fail("gather: negative size: outer %lld, size %lld, num_indices %lld, inner %lld", (long long)outer,
                (long long)size, (long long)num_indices, (long long)inner);
  }
  if (index_dtype != MG_INT32 && index_dtype != MG_INT64) return fail("gather: indices must be int32 or int64");
  if (outer == 0 || num_indices == 0 || inner == 0) return MG_OK;
  if (!indices || !y || (!x && size > 0)) return fail("gather: x, indices or y is NULL");
  if (index_dtype == MG_INT32) {
    return gather_rows(x, static_cast<const int32_t*>(indices), y, outer, size, num_indices, inner);
  }
  return gather_rows(x, static_cast<const int64_t*>(indices), y, outer, size, num_indices, inner);
}

int mg_embedding_lookup(const void* table, const void* ids, mg_dtype id_dtype, void* y, int64_t size, int64_t num_ids,
                        int64_t inner, int64_t first_id) {
  if (size < 0 || num_ids < 0 || inner < 0) {
    return fail("embedding_lookup: negative size: size %lld, num_ids %lld, inner %lld", (long long)size,
                (long long)num_ids, (long long)inner);
  }
  if (id_dtype != MG_INT32 && id_dtype != MG_INT64) return fail("embedding_lookup: ids must be int32 or int64");
  if (num_ids == 0 || inner == 0) return MG_OK;
  if (!ids || !y || (!table && size > 0)) return fail("embedding_lookup: table, ids or y is NULL");
  if (id_dtype == MG_INT32) {
    return look_rows_up(table, static_cast<const int32_t*>(ids), y, size, num_ids, inner, first_id);
  }
  return look_rows_up(table, static_cast<const int64_t*>(ids), y, size, num_ids, inner, first_id);
}

int mg_concat(const void* const* parts, const int64_t* inner, int num_parts, void* y, int64_t outer) {
  const int64_t width = check_parts("concat", y, parts, inner, num_parts, outer);
  if (width < 0) return MG_ERROR;
  for_rows(outer, width / kElementBytes, [&](int64_t row) {
    int64_t offset = row * width;
    for (int i = 0; i < num_parts; offset += inner[i++]) {
      if (inner[i] > 0) memcpy(bytes_at(y, offset), bytes_at(parts[i], row * inner[i]), inner[i]);
    }
  });
  return MG_OK;
}

int mg_split(const void* x, void* const* parts, const int64_t* inner, int num_parts, int64_t outer) {
  const int64_t width = check_parts("split", x, parts, inner, num_parts, outer);
  if (width < 0) return MG_ERROR;
  for_rows(outer, width / kElementBytes, [&](int64_t row) {
    int64_t offset = row * width;
    for (int i = 0; i < num_parts; offset += inner[i++]) {
      if (inner[i] > 0) memcpy(bytes_at(parts[i], row * inner[i]), bytes_at(x, offset), inner[i]);
    }
  });
  return MG_OK;
}

int mg_copy(const void* x, void* y, int64_t bytes) {
  if (bytes < 0) return fail("copy: %lld bytes", (long long)bytes);
  if (bytes == 0 || x == y) return MG_OK;
  if (!x || !y) return fail("copy: x or y is NULL");
  const int64_t piece = kTaskElements * kElementBytes;
  for_rows((bytes + piece - 1) / piece, kTaskElements, [&](int64_t i) {
    const int64_t start = i * piece;
    memcpy(bytes_at(y, start), bytes_at(x, start), bytes - start < piece ? bytes - start : piece);
  });
  return MG_OK;
}

int mg_copy_all(const mg_copy_call* calls, int64_t count) {
  if (count < 0 || (count > 0 && !calls)) return fail("copy_all: %lld copies", (long long)count);
  int64_t bytes = 0;
  for (int64_t i = 0; i < count; i++) {
    if (calls[i].bytes < 0 || (calls[i].bytes > 0 && !calls[i].y)) {
      return fail("copy_all: copy %lld has %lld bytes, or y is NULL", (long long)i, (long long)calls[i].bytes);
    }
    bytes += calls[i].bytes;
  }
  parallel_for(count, threads_for_elements(bytes / kElementBytes), [&](int64_t i) {
    if (calls[i].x) {
      memcpy(calls[i].y, calls[i].x, calls[i].bytes);
    } else {
      memset(calls[i].y, 0, calls[i].bytes);
    }
  });
  return MG_OK;
}

}  // extern "C"
