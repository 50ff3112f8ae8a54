#include "dispatch.h"

namespace mindgen::MG_ISA {

#define MG_NAME(name) name,
const KernelTable table = {MG_FOR_EACH_KERNEL(MG_NAME)};

}  // namespace mindgen::MG_ISA
