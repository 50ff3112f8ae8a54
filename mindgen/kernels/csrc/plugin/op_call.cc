#include "op_call.h"

#include <cstdio>

#include "views.h"

namespace {

struct DtypeName {
  const char* name;
  int64_t size;
  int dtype;  // of mg_dtype, or -1 where bytes can be moved but not computed with
};

const DtypeName dtype_names[] = {
    {"float32", 4, MG_FLOAT32}, {"bfloat16", 2, MG_BFLOAT16}, {"float16", 2, MG_FLOAT16}, {"float64", 8, MG_FLOAT64},
    {"int32", 4, MG_INT32},     {"int64", 8, MG_INT64},       {"bool", 1, MG_BOOL},       {"int8", 1, MG_INT8},
    {"uint8", 1, MG_UINT8},     {"int16", 2, MG_INT16},       {"uint16", 2, MG_UINT16},   {"uint32", 4, MG_UINT32},
    {"uint64", 8, MG_UINT64},   {"complex64", 8, -1},         {"complex128", 16, -1},
};

const DtypeName& find_dtype(const char* name) {
  for (const DtypeName& known : dtype_names)
    if (std::strcmp(known.name, name) == 0) return known;
  throw mindgen::Refused(std::string("dtype ") + name + " is not served");
}

// "bfloat16 (6, 32), int32 (6)": inputs and outputs, but no scalars and no absent inputs.
std::string describe_tensors(const mindgen::OpCall& call) {
  std::string text;
  for (int i = 0; i < call.count; ++i) {
    if (call.ndims[i] == 0) continue;
    text += (text.empty() ? "" : ", ") + std::string(call.dtypes[i]) + " (";
    for (int axis = 0; axis < call.ndims[i]; ++axis) text += (axis ? ", " : "") + std::to_string(call.dim(i, axis));
    text += ")";
  }
  return text.empty() ? "scalars" : text;
}

}  // namespace

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

std::vector<int64_t> OpCall::broadcast_strides(int i, int axes, int out_axes) const {
  std::vector<int64_t> strides(out_axes, 0);
  int64_t stride = elements(i, axes, ndims[i]);
  for (int axis = axes - 1; axis >= 0; --axis) {
    strides[axis + out_axes - axes] = shapes[i][axis] == 1 ? 0 : stride;
    stride *= shapes[i][axis];
  }
  return strides;
}

int serve(const char* op, OpCall call, InputInfo* info, OpBody* body) {
  std::string reason;
  try {
    const ContiguousInputs inputs(call, info);
    if (body(inputs.call()) == MG_OK) return 0;
    reason = mg_last_error();
  } catch (const std::exception& error) {
    reason = error.what();
  }
  const std::string message = std::string("CPU op ") + op + ": " + reason + "; called with " + describe_tensors(call);
  mg_set_error(message.c_str());
  std::fprintf(stderr, "mindgen: %s\n", message.c_str());
  return 1;
}

}  // namespace mindgen
