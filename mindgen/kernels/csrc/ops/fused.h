// Ops that the executor's fusion puts in the place of several; MindSpore has none of them.
#pragma once
#include "op.h"

namespace mindgen::fused {

extern const Op linear;            // MatMul with its bias, the residual that is added, and a Cast to float32
extern const Op linear_swiglu;     // Swiglu of a MatMul
extern const Op rotary_and_cache;  // the heads' norms, ApplyRotaryPosEmb and ReshapeAndCache
extern const Op add_lora;          // what a batch's adapters add to a MatMul
extern const Op contiguous;        // a copy whose rows follow each other

// How many inputs of AddLora belong to a level: its group_ends, of int64, a, and b of each part.
template <class DtypeOf>
int lora_level_inputs(int num_inputs, const DtypeOf& dtype_of) {
  int next = 3;
  while (next < num_inputs && dtype_of(next) != MG_INT64) next++;
  return next - 2;
}

}  // namespace mindgen::fused
