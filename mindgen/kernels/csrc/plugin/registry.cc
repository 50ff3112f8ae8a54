// The ops there are, and what MindSpore asks a plugin for: their names.
#include "op_call.h"

namespace mindgen {
namespace {

struct Registry {
  std::vector<const char*> names;
  std::vector<OpBody*> bodies;
};

// Filled while the library is loaded, in no particular order.
Registry& registry() {
  static Registry all;
  return all;
}

}  // namespace

RegisteredOp::RegisteredOp(const char* name, OpBody* body) {
  registry().names.push_back(name);
  registry().bodies.push_back(body);
}

OpBody* find_body(const std::string& name) {
  const Registry& all = registry();
  for (size_t i = 0; i < all.names.size(); i++)
    if (all.names[i] == name) return all.bodies[i];
  return nullptr;
}

}  // namespace mindgen

extern "C" {
__attribute__((visibility("default"))) int GetRegisteredOpCount() {
  return static_cast<int>(mindgen::registry().names.size());
}
__attribute__((visibility("default"))) char** GetAllRegisteredOps() {
  return const_cast<char**>(mindgen::registry().names.data());
}
__attribute__((visibility("default"))) bool IsKernelRegistered(const char* op) {
  return mindgen::find_body(op) != nullptr;
}
}
