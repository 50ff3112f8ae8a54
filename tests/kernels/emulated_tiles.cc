// Stands in for table.cc in the library of emulated tiles, which has the matrix products in bfloat16 only.
#include "dispatch.h"

namespace mindgen::portable {

static KernelTable products_in_tiles() {
  KernelTable products = {};
  products.matmul = matmul;
  products.linear = linear;
  products.linear_swiglu = linear_swiglu;
  products.grouped_matmul = grouped_matmul;
  return products;
}

const KernelTable table = products_in_tiles();

}  // namespace mindgen::portable
