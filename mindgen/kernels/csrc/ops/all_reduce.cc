// Sums over the ranks of a group.
#include "op.h"

using namespace mindgen;

namespace {

// Which group it is, MindSpore does not tell.
int run_all_reduce(const OpCall& call) {
  const Tensor &x = call.input(0), &y = call.output(0);
  return mg_all_reduce(mg_group_in_use(), x.data, y.data, x.elements(), common_float({x, y}));
}

}  // namespace

MINDGEN_OP(AllReduce, .signature = "x -> y", .infer = infer_like_first, .run = run_all_reduce, .in_place = {0, 0})
