// For kernels that only move bytes: the compiler's memcpy is the same for every instruction set.
#pragma once
#include <string.h>

#include "dispatch.h"
#include "threads.h"

namespace mindgen {

constexpr int64_t kElementBytes = 16;  // copied in the time that arithmetic takes for an element

static inline const char* bytes_at(const void* buffer, int64_t offset) {
  return static_cast<const char*>(buffer) + offset;
}
static inline char* bytes_at(void* buffer, int64_t offset) { return static_cast<char*>(buffer) + offset; }

}  // namespace mindgen
