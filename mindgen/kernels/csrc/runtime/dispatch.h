// The kernels of each instruction set, and what the functions of the C interface share.
#pragma once
#include "attention.h"
#include "mindgen_kernels.h"

// The kernels compiled once for each instruction set. To add one: its name here, its definition in
// namespace mindgen::MG_ISA with the signature of mg_<name>, and an mg_<name> that checks the arguments.
#define MG_FOR_EACH_KERNEL(apply) \
  apply(matmul)                   \
  apply(linear)                   \
  apply(linear_swiglu)            \
  apply(grouped_matmul)           \
  apply(add_lora)                 \
  apply(measure_read_bandwidth)   \
  apply(measure_product_rate)     \
  apply(attention)                \
  apply(rms_norm)                 \
  apply(add_rms_norm)             \
  apply(layer_norm)               \
  apply(apply_rotary)             \
  apply(rotary_and_cache)         \
  apply(swiglu)                   \
  apply(silu)                     \
  apply(gelu)                     \
  apply(gelu_erf)                 \
  apply(add)                      \
  apply(mul)                      \
  apply(cast)                     \
  apply(are_finite)               \
  apply(copy_finite)              \
  apply(scale_transpose)          \
  apply(dequantize)               \
  apply(sum)                      \
  apply(sample)

namespace mindgen {

struct KernelTable {
#define MG_POINTER(name) decltype(&mg_##name) name;
  MG_FOR_EACH_KERNEL(MG_POINTER)
#undef MG_POINTER
};

#define MG_DECLARE(name) decltype(mg_##name) name;
#define MG_DECLARE_INSTRUCTION_SET(isa) \
  namespace isa {                       \
  MG_FOR_EACH_KERNEL(MG_DECLARE)        \
  extern const KernelTable table;       \
  }
MG_DECLARE_INSTRUCTION_SET(portable)
MG_DECLARE_INSTRUCTION_SET(avx2)
MG_DECLARE_INSTRUCTION_SET(avx512)
MG_DECLARE_INSTRUCTION_SET(amx)
#undef MG_DECLARE_INSTRUCTION_SET
#undef MG_DECLARE

// The kernels of the instruction set in use.
const KernelTable& kernels();

// Keeps the message for mg_last_error() and returns MG_ERROR.
int fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Whether every slot is -1 or within a cache of num_slots.
int check_slots(const char* name, const int32_t* slot_mapping, int64_t T, int64_t num_slots);

// cpu.cc: what this machine can run, asked once.
mg_instruction_set detect_instruction_set();

static inline bool is_compute_dtype(mg_dtype dtype) {
  return dtype == MG_FLOAT32 || dtype == MG_BFLOAT16 || dtype == MG_FLOAT16;
}

}  // namespace mindgen
