// What the stand-in for CANN answers. Everything that MindSpore's Ascend plugin links to or looks up and that is not
// here is an alias of one of the first four symbols; stand_in.py makes those. Built with the old ABI of std::string,
// which CANN and MindSpore share.
#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <thread>

extern "C" {

// Success, an empty handle, or nothing.
void *stand_in_zero() { return nullptr; }

// An object that holds no more than an empty shared pointer.
void *stand_in_construct(void *object) { return std::memset(object, 0, 16); }

// A singleton that nobody looks into.
void *stand_in_instance() {
  static char object[65536];
  return object;
}

// A virtual table, or the description of a type.
void *stand_in_table[128] = {nullptr, nullptr,
#define FOUR reinterpret_cast<void *>(&stand_in_zero), reinterpret_cast<void *>(&stand_in_zero), \
    reinterpret_cast<void *>(&stand_in_zero), reinterpret_cast<void *>(&stand_in_zero)
                             FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR, FOUR};

const char *aclrtGetSocName() { return "Ascend910B2"; }

const char *aclGetRecentErrMsg() { return ""; }

int aclrtGetDeviceCount(uint32_t *count) {
  *count = 8;
  return 0;
}

}  // extern "C"

namespace ge {

struct StatusFactory {
  static StatusFactory *Instance();
  std::map<uint32_t, std::string> descriptions;
};

StatusFactory *StatusFactory::Instance() {
  static StatusFactory factory;
  return &factory;
}

// Level 1 of the simulation gives operators attributes, so they must be real objects.
struct OperatorImpl {
  std::string name, type;
};

class Operator {
 public:
  Operator(const char *name, const char *type);
  virtual ~Operator() = default;

 private:
  std::shared_ptr<OperatorImpl> impl_;
};

Operator::Operator(const char *name, const char *type) : impl_(new OperatorImpl{name, type}) {}

struct OperatorFactory {
  static Operator CreateOperator(const char *name, const char *type);
  static Operator CreateOperator(const std::string &name, const std::string &type);
  static bool IsExistOp(const char *type);
  static bool IsExistOp(const std::string &type);
};

Operator OperatorFactory::CreateOperator(const char *name, const char *type) { return {name, type}; }
Operator OperatorFactory::CreateOperator(const std::string &name, const std::string &type) {
  return {name.c_str(), type.c_str()};
}
bool OperatorFactory::IsExistOp(const char *) { return true; }
bool OperatorFactory::IsExistOp(const std::string &) { return true; }

}  // namespace ge

namespace mindspore::device::ascend {

// The dry run's own answers at once, to threads that ask it again and again: they would take all cores.
template <typename Result>
Result SimuFuncIaclrtProcessReport(int milliseconds) {
  std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  return {};
}
template int SimuFuncIaclrtProcessReport<int>(int);

}  // namespace mindspore::device::ascend
