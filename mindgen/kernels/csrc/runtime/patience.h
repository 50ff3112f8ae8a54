// How to wait for another process that may come at any moment.
#pragma once

#include <sched.h>

#include <chrono>

namespace mindgen {

// Ranks come within microseconds of each other where each has its core. Where they share one, whoever waits leaves it
// to the others; and sleeps where they take long.
class Patience {
 public:
  // Whether to look again at once, after a moment; else it is time to sleep.
  bool stay_awake() {
    const auto waited = std::chrono::steady_clock::now() - start_;
    if (waited >= kStayAwake) return false;
    if (waited < kKeepCore) {
#ifdef MG_X86
      __builtin_ia32_pause();
#endif
    } else {
      sched_yield();
    }
    return true;
  }

  void renew() { start_ = std::chrono::steady_clock::now(); }

 private:
  static constexpr auto kKeepCore = std::chrono::microseconds(20);
  static constexpr auto kStayAwake = std::chrono::microseconds(300);

  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace mindgen
