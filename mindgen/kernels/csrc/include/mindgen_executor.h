// The plain C interface of mindgen's graph executor: a network is described once, as a list of nodes, compiled to a flat
// list of kernel calls, and run on any number of tokens. It knows nothing of MindSpore.
//
// Every function that returns int gives MG_OK or MG_ERROR unless it says otherwise; mg_last_error() tells why.
#pragma once
#include "mindgen_kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { MG_MAX_AXES = 8 };

typedef struct mg_graph mg_graph;

typedef struct {
  mg_dtype dtype;
  int ndim;                     // 0..MG_MAX_AXES
  int64_t shape[MG_MAX_AXES];   // in a description, -1 where only the run tells
} mg_tensor_type;

// Memory for output number `index` of a run, of this type; NULL when there is none.
typedef void* mg_allocate_output(void* context, int index, const mg_tensor_type* type);

// fuse: whether neighbouring ops may become one kernel, whose results differ within rounding.
mg_graph* mg_graph_create(bool fuse);
void mg_graph_destroy(mg_graph* graph);

// These add a value and return its number, or -1. Inputs are numbered in the order in which they are added.
int mg_graph_add_input(mg_graph* graph, const mg_tensor_type* type);
int mg_graph_add_constant(mg_graph* graph, const mg_tensor_type* type, const void* data);  // the data is copied
int mg_graph_add_none(mg_graph* graph);
int mg_graph_add_bool(mg_graph* graph, bool value);
int mg_graph_add_int(mg_graph* graph, int64_t value);
int mg_graph_add_float(mg_graph* graph, float value);
int mg_graph_add_ints(mg_graph* graph, const int64_t* values, int count);

// A call of a MindSpore op: its inputs in MindSpore's order, scalars among them. Returns the number of the first output,
// the others follow it; -1 when the executor does not know the op. Nodes run in the order in which they are added.
int mg_graph_add_node(mg_graph* graph, const char* op, const char* name, const int* inputs, int num_inputs,
                      const mg_tensor_type* outputs, int num_outputs);
int mg_graph_set_outputs(mg_graph* graph, const int* values, int count);

// To be called once, before the first run.
int mg_graph_compile(mg_graph* graph);

// data (num_inputs), shapes (num_inputs, MG_MAX_AXES): contiguous inputs of the types described.
int mg_graph_run(mg_graph* graph, void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_inputs,
                 mg_allocate_output* allocate, void* context);

// Several runs at once, each on a thread of its own, for rows that do not depend on each other; data and shapes
// (num_parts, num_inputs). An output has the entries of all parts, one part's after the other's.
int mg_graph_run_parts(mg_graph* graph, void* const* data, const int64_t (*shapes)[MG_MAX_AXES], int num_inputs,
                       int num_parts, mg_allocate_output* allocate, void* context);

// The kernel calls of a compiled graph, one per line: op, name and inputs.
const char* mg_graph_describe(mg_graph* graph);

// One kernel call of a profiled run. The strings live as long as the graph.
typedef struct {
  const char* op;
  const char* name;
  int64_t start_ns;  // of the monotonic clock
  int64_t duration_ns;
  int64_t bytes;     // of inputs and outputs, each once
  int64_t operations;
  int64_t recording_ns;  // spent on this record after the call's end
} mg_kernel_call;

// Between start and stop every run records its kernel calls, of all graphs. stop returns how many there are, read copies
// the first `count` of them.
void mg_profile_start(void);
int64_t mg_profile_stop(void);
void mg_profile_read(mg_kernel_call* calls, int64_t count);

// A run that was made through MindSpore, as a backend tells of it: whoever calls it again needs MindSpore no more.
typedef struct {
  mg_graph* graph;  // NULL when MindSpore's runtime made the run
  int num_inputs;
  void* const* data;
  const int64_t (*shapes)[MG_MAX_AXES];
  double lowering_seconds; // that it took to make the graph
} mg_graph_call;

// The functions above that a backend needs, for code that does not link with this library.
typedef struct {
  mg_graph* (*create)(bool);
  void (*destroy)(mg_graph*);
  int (*add_input)(mg_graph*, const mg_tensor_type*);
  int (*add_constant)(mg_graph*, const mg_tensor_type*, const void*);
  int (*add_none)(mg_graph*);
  int (*add_bool)(mg_graph*, bool);
  int (*add_int)(mg_graph*, int64_t);
  int (*add_float)(mg_graph*, float);
  int (*add_ints)(mg_graph*, const int64_t*, int);
  int (*add_node)(mg_graph*, const char*, const char*, const int*, int, const mg_tensor_type*, int);
  int (*set_outputs)(mg_graph*, const int*, int);
  int (*compile)(mg_graph*);
  int (*run)(mg_graph*, void* const*, const int64_t (*)[MG_MAX_AXES], int, mg_allocate_output*, void*);
  const char* (*last_error)(void);
} mg_executor;

const mg_executor* mg_executor_functions(void);

#ifdef __cplusplus
}
#endif
