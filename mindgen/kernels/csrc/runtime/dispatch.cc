#include "dispatch.h"

#include <stdarg.h>
#include <stdio.h>

#include <atomic>
#include <mutex>
#include <string>

#include "parallel.h"

namespace mindgen {
namespace {

const char* const kSetNames[] = {"portable", "avx2", "avx512", "amx"};

std::mutex error_mutex;
std::string last_error;

std::atomic<mg_instruction_set> current_set{mg_best_instruction_set()};
std::atomic<int> current_threads{available_cores()};

const KernelTable& table_of(mg_instruction_set set) {
#ifdef MG_X86
  static const KernelTable amx_table = [] {
    KernelTable table = avx512::table;  // AMX speeds up large matrix products only
#ifdef MG_HAS_AMX
    table.matmul = amx::matmul;
    table.linear = amx::linear;
    table.linear_swiglu = amx::linear_swiglu;
    table.grouped_matmul = amx::grouped_matmul;
    table.measure_product_rate = amx::measure_product_rate;
#endif
    return table;
  }();
  switch (set) {
    case MG_AVX2: return avx2::table;
    case MG_AVX512: return avx512::table;
    case MG_AMX: return amx_table;
    default: return portable::table;
  }
#else
  (void)set;
  return portable::table;
#endif
}

}  // namespace

const KernelTable& kernels() { return table_of(current_set); }

int fail(const char* format, ...) {
  char message[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof(message), format, arguments);
  va_end(arguments);
  mg_set_error(message);
  return MG_ERROR;
}

int check_slots(const char* name, const int32_t* slot_mapping, int64_t T, int64_t num_slots) {
  for (int64_t t = 0; t < T; t++) {
    if (slot_mapping[t] < -1 || slot_mapping[t] >= num_slots) {
      return fail("%s: slot %d of token %lld is outside the cache of %lld", name, (int)slot_mapping[t], (long long)t,
                  (long long)num_slots);
    }
  }
  return MG_OK;
}

}  // namespace mindgen

using namespace mindgen;

extern "C" {

const char* mg_version(void) { return MG_VERSION; }

const char* mg_last_error(void) {
  static thread_local std::string copy;  // another thread may replace the original while the caller reads
  std::lock_guard<std::mutex> lock(error_mutex);
  copy = last_error;
  return copy.c_str();
}

void mg_set_error(const char* message) {
  std::lock_guard<std::mutex> lock(error_mutex);
  last_error = message;
}

mg_instruction_set mg_best_instruction_set(void) {
  static const mg_instruction_set best = detect_instruction_set();
  return best;
}

mg_instruction_set mg_get_instruction_set(void) { return current_set; }

int mg_set_instruction_set(mg_instruction_set set) {
  if (set < MG_PORTABLE || set > MG_AMX) return fail("there is no instruction set number %d", (int)set);
  if (set > mg_best_instruction_set()) {
    return fail("this machine cannot run the %s kernels, its best are %s", kSetNames[set],
                kSetNames[mg_best_instruction_set()]);
  }
  current_set = set;
  return MG_OK;
}

int mg_set_num_threads(int num_threads) {
  if (num_threads < 1) return fail("the number of threads must be at least 1, not %d", num_threads);
  current_threads = num_threads;
  return MG_OK;
}

int mg_get_num_threads(void) { return current_threads; }

}  // extern "C"
