// The record of the kernel calls of profiled runs.
#pragma once
#include <atomic>
#include <chrono>
#include <mutex>
#include <vector>

#include "mindgen_executor.h"

namespace mindgen {

static inline int64_t nanoseconds_now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

class Profile {
 public:
  void start() {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.clear();
    recording_ = true;
  }
  int64_t stop() {
    std::lock_guard<std::mutex> lock(mutex_);
    recording_ = false;
    return static_cast<int64_t>(calls_.size());
  }
  bool recording() const { return recording_; }
  void add(const mg_kernel_call& call) {
    std::lock_guard<std::mutex> lock(mutex_);
    calls_.push_back(call);
    calls_.back().recording_ns = nanoseconds_now() - call.start_ns - call.duration_ns;
  }
  void read(mg_kernel_call* to, int64_t count) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int64_t i = 0; i < count; i++) to[i] = calls_[i];
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> recording_{false};
  std::vector<mg_kernel_call> calls_;
};

Profile& profile();

}  // namespace mindgen
