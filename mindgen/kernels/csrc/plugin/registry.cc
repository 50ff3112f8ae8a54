// What MindSpore asks a plugin for: the names of its ops.
#include "op.h"

extern "C" {
__attribute__((visibility("default"))) int GetRegisteredOpCount() {
  return static_cast<int>(mindgen::all_ops().size());
}
__attribute__((visibility("default"))) char** GetAllRegisteredOps() {
  static const std::vector<const char*> names = [] {
    std::vector<const char*> all;
    for (const mindgen::Op* op : mindgen::all_ops()) all.push_back(op->name);
    return all;
  }();
  return const_cast<char**>(names.data());
}
__attribute__((visibility("default"))) bool IsKernelRegistered(const char* op) {
  return mindgen::find_op(op) != nullptr;
}
}
