// Inputs that are views. Where a tensor is a transpose or a slice of another, MindSpore passes the other's memory; how
// to look into it is told by the last argument of a call.
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "raw_call.h"

namespace mindgen {

struct TensorLayout {
  std::vector<int64_t> strides;  // in elements, as the offset
  size_t offset;
};

// MindSpore's class mindspore::kernel::op_plugin::KernelInputInfo (2.9 and 2.10). It is called through its table of
// virtual functions, so their number and order must be that of MindSpore, used or not.
class InputInfo {
 public:
  virtual ~InputInfo() = default;
  virtual bool is_scalar(size_t input) = 0;
  virtual size_t num_inputs() = 0;
  virtual bool bool_value(size_t input) = 0;
  virtual int64_t int_value(size_t input) = 0;
  virtual double float_value(size_t input) = 0;
  virtual std::string string_value(size_t input) = 0;
  virtual std::vector<int64_t> int_values(size_t input) = 0;
  virtual std::vector<double> float_values(size_t input) = 0;
  virtual std::vector<std::vector<int64_t>> int_table(size_t input) = 0;
  virtual std::vector<std::vector<double>> float_table(size_t input) = 0;
  virtual int type_id(size_t input) = 0;
  virtual std::optional<TensorLayout> layout(size_t input) = 0;  // nothing for what is no view
};

// A call whose inputs are all contiguous: where they are not, copies take their place.
class ContiguousInputs {
 public:
  ContiguousInputs(const RawCall& call, InputInfo* info);

  const RawCall& call() const { return call_; }

 private:
  void replace(int i, const TensorLayout& layout);

  RawCall call_;
  std::vector<void*> params_;
  std::vector<std::unique_ptr<char[]>> copies_;
};

}  // namespace mindgen
