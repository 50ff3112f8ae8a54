#pragma once
#include "graph.h"

namespace mindgen {

// Gives every result that is no view a slot of the workspace; those that do not live at the same time share slots.
// Returns the number of slots.
int plan_slots(Graph& graph);

}  // namespace mindgen
