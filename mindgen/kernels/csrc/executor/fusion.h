#pragma once
#include "graph.h"

namespace mindgen {

// Puts one fused op in the place of several wherever the graph has its pattern.
void fuse(Graph& graph);

}  // namespace mindgen
