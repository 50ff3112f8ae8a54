// What MindSpore asks a plugin for: the names of the ops it serves.
#include <cstring>

namespace {

const char* const op_names[] = {
    "RmsNorm", "AddRmsNorm", "ApplyRotaryPosEmb", "ReshapeAndCache", "PagedAttention", "FlashAttentionScore",
    "MatMul", "MatMulExt", "Dense", "BatchMatMul", "GroupedMatmul", "Swiglu", "SiLU", "Add", "Mul", "Gather",
    "Reshape", "Cast", "Concat", "Split", "SplitWithSize",
};
constexpr int num_ops = sizeof(op_names) / sizeof(op_names[0]);

}  // namespace

extern "C" {
__attribute__((visibility("default"))) int GetRegisteredOpCount() { return num_ops; }
__attribute__((visibility("default"))) char** GetAllRegisteredOps() { return const_cast<char**>(op_names); }
__attribute__((visibility("default"))) bool IsKernelRegistered(const char* op) {
  for (const char* name : op_names)
    if (std::strcmp(name, op) == 0) return true;
  return false;
}
}
