// Loops over elements and rows, by several threads when there is enough to do.
#pragma once
#include <stdint.h>

#include "mindgen_kernels.h"
#include "parallel.h"

namespace mindgen {

// Waking the threads costs as much as some ten thousand elements of arithmetic.
static inline int threads_for_elements(int64_t elements) { return elements < 32768 ? 1 : usable_threads(); }

// Elements of a task: many times what handing it out costs, and a multiple of every vector's width.
constexpr int64_t kTaskElements = 8192;

// body(first, end) for pieces of 0..count
template <class Body>
static void for_pieces(int64_t count, const Body& body) {
  const int64_t num_tasks = (count + kTaskElements - 1) / kTaskElements;
  parallel_for(num_tasks, threads_for_elements(count), [&](int64_t task) {
    const int64_t first = task * kTaskElements, end = first + kTaskElements;
    body(first, end < count ? end : count);
  });
}

// body(row) for every row from 0 to rows - 1, each the work of so many elements
template <class Body>
static void for_rows(int64_t rows, int64_t elements, const Body& body) {
  const int64_t task_rows = elements < kTaskElements ? kTaskElements / (elements > 0 ? elements : 1) : 1;
  const int64_t num_tasks = (rows + task_rows - 1) / task_rows;
  parallel_for(num_tasks, threads_for_elements(rows * elements), [&](int64_t task) {
    const int64_t end = (task + 1) * task_rows;
    for (int64_t row = task * task_rows; row < (end < rows ? end : rows); row++) body(row);
  });
}

}  // namespace mindgen
