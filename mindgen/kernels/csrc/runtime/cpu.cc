// What the processor offers and the operating system has switched on.
#include "dispatch.h"

#ifdef MG_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mindgen {

#ifdef MG_X86
namespace {

struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);  // zeros when the leaf does not exist
  return r;
}

bool has(unsigned value, unsigned bits) { return (value & bits) == bits; }

unsigned enabled_register_state() {
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

bool request_tile_permission() {
#ifdef __linux__
  const int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

}  // namespace

mg_instruction_set detect_instruction_set() {
  const unsigned fma = 1u << 12, osxsave = 1u << 27, avx = 1u << 28, f16c = 1u << 29;            // leaf 1 ecx
  const unsigned avx2 = 1u << 5;                                                                 // leaf 7 ebx
  const unsigned avx512 = 1u << 16 /* F */ | 1u << 17 /* DQ */ | 1u << 30 /* BW */ | 1u << 31 /* VL */;
  const unsigned avx512_bf16 = 1u << 5;                                                          // leaf 7.1 eax
  const unsigned amx = 1u << 22 /* BF16 */ | 1u << 24 /* TILE */;                                // leaf 7 edx
  const unsigned ymm_state = 0x6, zmm_state = 0xe6, tile_state = 0x60000;                        // xgetbv

  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
  if (!has(basic.ecx, fma | osxsave | avx | f16c) || !has(extended.ebx, avx2)) return MG_PORTABLE;
  const unsigned state = enabled_register_state();
  if (!has(state, ymm_state)) return MG_PORTABLE;
  if (!has(extended.ebx, avx512) || !has(cpuid(7, 1).eax, avx512_bf16) || !has(state, zmm_state)) return MG_AVX2;
  if (!has(extended.edx, amx) || !has(state, tile_state) || !request_tile_permission()) return MG_AVX512;
  return MG_AMX;
}
#else
mg_instruction_set detect_instruction_set() { return MG_PORTABLE; }
#endif

}  // namespace mindgen
