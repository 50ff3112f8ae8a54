// When a kernel is worth several threads.
#pragma once
#include <stdint.h>

#include "mindgen_kernels.h"

namespace mindgen {

// Waking the threads costs as much as some ten thousand elements of arithmetic.
static inline int threads_for_elements(int64_t elements) { return elements < 32768 ? 1 : mg_get_num_threads(); }

static inline int threads_for_bytes(int64_t bytes) { return bytes < (1 << 19) ? 1 : mg_get_num_threads(); }

}  // namespace mindgen
