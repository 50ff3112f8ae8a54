// Working memory of the kernels. Each thread keeps its buffers from call to call, as fresh pages cost more than
// many a product.
#pragma once
#include <stddef.h>

namespace mindgen {

enum Scratch {
  kScratchInputs, kScratchWeights, kScratchSums, kScratchLowRank, kScratchFlags, kScratchLogits, kScratchHistory,
  kScratchCount
};

// This thread's buffer of that use, at least so large, aligned to 64 bytes. Its contents do not survive the call.
void* scratch(Scratch use, size_t bytes);

}  // namespace mindgen
