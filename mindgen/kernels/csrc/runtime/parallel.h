// Loops over tasks by several threads, for machines that are busy with other things too: a thread the system does not
// run in time takes no tasks, and nobody waits for it.
#pragma once
#include <stdint.h>

namespace mindgen {

// How many cores this process may run on.
int available_cores();

// How many threads a loop begun here may have: as many as are set, and one within a task.
int usable_threads();

// task(context, i) for every i from 0 to count - 1, by up to `threads` threads, this one among them. One call at a time
// has help: those from other threads, or from within tasks, do their tasks alone.
void run_tasks(int64_t count, int threads, void (*task)(const void* context, int64_t i), const void* context);

// body(i) for every i from 0 to count - 1. Static: each file has its own, compiled for its instruction set.
template <class Body>
static void parallel_for(int64_t count, int threads, const Body& body) {
  run_tasks(count, threads, [](const void* context, int64_t i) { (*(const Body*)context)(i); }, &body);
}

}  // namespace mindgen
