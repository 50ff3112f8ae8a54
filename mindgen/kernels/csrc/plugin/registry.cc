// What MindSpore asks a plugin for: the names of the ops it serves, and how it reads a call's dtypes.
#include "op_call.h"

namespace {

const char* const op_names[] = {
    "RmsNorm", "AddRmsNorm", "ApplyRotaryPosEmb", "ReshapeAndCache", "PagedAttention", "FlashAttentionScore",
    "MatMul", "MatMulExt", "Dense", "BatchMatMul", "GroupedMatmul", "Swiglu", "SiLU", "Add", "Mul", "Gather",
    "Reshape", "Cast", "Concat", "Split", "SplitWithSize",
};
constexpr int num_ops = sizeof(op_names) / sizeof(op_names[0]);

struct DtypeName {
  const char* name;
  int64_t size;
  int dtype;  // of mg_dtype, or -1 where bytes can be moved but not computed with
};

const DtypeName dtype_names[] = {
    {"float32", 4, MG_FLOAT32}, {"bfloat16", 2, MG_BFLOAT16}, {"float16", 2, MG_FLOAT16}, {"float64", 8, MG_FLOAT64},
    {"int32", 4, MG_INT32},     {"int64", 8, MG_INT64},       {"bool", 1, MG_BOOL},       {"int8", 1, -1},
    {"uint8", 1, -1},           {"int16", 2, -1},             {"uint16", 2, -1},          {"uint32", 4, -1},
    {"uint64", 8, -1},          {"complex64", 8, -1},         {"complex128", 16, -1},
};

const DtypeName& find_dtype(const char* name) {
  for (const DtypeName& known : dtype_names)
    if (std::strcmp(known.name, name) == 0) return known;
  throw mindgen::Refused(std::string("dtype ") + name + " is not served");
}

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

namespace mindgen {

mg_dtype OpCall::dtype(std::initializer_list<int> same) const {
  const char* name = dtypes[*same.begin()];
  for (int i : same)
    require(std::strcmp(dtypes[i], name) == 0,
            std::string("inputs must share one dtype, not ") + name + " and " + dtypes[i] + "; cast one of them");
  const int known = find_dtype(name).dtype;
  require(known >= 0, std::string("dtype ") + name + " is not served; cast to float32, bfloat16, float16 or int32");
  return static_cast<mg_dtype>(known);
}

mg_dtype OpCall::float_dtype(std::initializer_list<int> same) const {
  const mg_dtype found = dtype(same);
  require(found == MG_FLOAT32 || found == MG_BFLOAT16 || found == MG_FLOAT16,
          std::string("dtype ") + dtypes[*same.begin()] + " is not served; cast to bfloat16, float16 or float32");
  return found;
}

int64_t OpCall::item_size(int i) const { return find_dtype(dtypes[i]).size; }

}  // namespace mindgen
