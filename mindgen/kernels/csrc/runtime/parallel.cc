#include "parallel.h"

#include "mindgen_kernels.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace mindgen {
namespace {

thread_local bool shares_job = false;  // so that loops within its tasks run alone

struct Job {
  const int64_t count;
  void (*const task)(const void*, int64_t);
  const void* const context;
  int places;                // for helpers, guarded by the mutex of the pool
  std::atomic<int> helpers;  // at work
  std::atomic<int64_t> next;

  void work() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(context, i);
  }
  void share() {
    shares_job = true;
    work();
    shares_job = false;
  }
};

// Waking a sleeping thread takes about as long as a small kernel, so threads wait awake for a while: first for the
// next kernel to follow at once, then leaving the core to whoever else can run.
constexpr auto kKeepCore = std::chrono::microseconds(50);
constexpr auto kStayAwake = std::chrono::microseconds(1000);

template <class Condition>
bool spin_until(const Condition& condition) {
  const auto start = std::chrono::steady_clock::now();
  while (!condition()) {
    const auto waited = std::chrono::steady_clock::now() - start;
    if (waited > kStayAwake) return false;
    if (waited > kKeepCore) sched_yield();
  }
  return true;
}

cpu_set_t allowed_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  CPU_SET(0, &allowed);
  sched_getaffinity(0, sizeof(allowed), &allowed);  // more than 1024 cores, and it stays at one
  return allowed;
}

class Pool {
  static constexpr int kAnyCore = -1;
  struct Helper {
    pthread_t thread;
    int core;  // its own, or kAnyCore
  };

 public:
  // Whether there was no other job; otherwise nothing was done.
  bool run(Job& job) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (job_) return false;
      while ((int)helpers_.size() < job.places) add_helper();
      leave_core_to_caller();
      job_ = &job;
    }
    published_.notify_all();
    job.share();
    {
      std::lock_guard<std::mutex> lock(mutex_);
      job_ = nullptr;  // nobody joins from here on
    }
    const auto done = [&] { return job.helpers == 0; };
    if (!spin_until(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      left_.wait(lock, done);
    }
    return true;
  }

 private:
  void add_helper() {
    std::thread thread(&Pool::help, this);
    helpers_.push_back({thread.native_handle(), kAnyCore});
    thread.detach();
    callers_core_ = -1;
  }

  // Left alone, the system often wakes a helper on the very core that calls it, where it waits for the caller to stop,
  // or two on the same core.
  void leave_core_to_caller() {
    const int core = sched_getcpu();
    if (core < 0 || core == callers_core_) return;
    callers_core_ = core;
    cpu_set_t others = allowed_;
    CPU_CLR(core, &others);
    if (CPU_COUNT(&others) == 0) return;
    if (CPU_COUNT(&others) < (int)helpers_.size()) {
      for (Helper& helper : helpers_) move(helper, others, kAnyCore);
      return;
    }
    for (const Helper& helper : helpers_) {
      if (helper.core != kAnyCore) CPU_CLR(helper.core, &others);
    }
    for (Helper& helper : helpers_) {
      if (helper.core != kAnyCore && helper.core != core) continue;
      cpu_set_t own;
      CPU_ZERO(&own);
      int free = 0;
      while (!CPU_ISSET(free, &others)) free++;
      CPU_SET(free, &own);
      CPU_CLR(free, &others);
      move(helper, own, free);
    }
  }

  void move(Helper& helper, const cpu_set_t& cores, int core) {
    pthread_setaffinity_np(helper.thread, sizeof(cores), &cores);
    helper.core = core;
  }

  // The life of a helper.
  void help() {
    for (;;) {
      spin_until([&] { return job_ != nullptr; });
      std::unique_lock<std::mutex> lock(mutex_);
      published_.wait(lock, [&] { return job_ != nullptr && job_.load()->places > 0; });
      Job& job = *job_;
      job.places--;
      job.helpers++;
      lock.unlock();
      job.share();
      lock.lock();
      job.helpers--;
      left_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable published_, left_;
  std::atomic<Job*> job_{nullptr};
  std::vector<Helper> helpers_;
  const cpu_set_t allowed_ = allowed_cores();
  int callers_core_ = -1;
};

}  // namespace

int usable_threads() { return shares_job ? 1 : mg_get_num_threads(); }

int available_cores() {
  const cpu_set_t allowed = allowed_cores();
  return CPU_COUNT(&allowed);
}

void run_tasks(int64_t count, int threads, void (*task)(const void*, int64_t), const void* context) {
  static Pool& pool = *new Pool;  // never destroyed: helpers use it to the end of the process
  const int places = (int)(count < threads ? count : threads) - 1;
  Job job{count, task, context, places, {0}, {0}};
  if (places < 1 || shares_job || !pool.run(job)) job.work();
}

}  // namespace mindgen
