// The plain C interface of mindgen's CPU kernels: raw row-major buffers in, raw buffers out.
//
// Letters: T tokens, B sequences, Hq query heads, Hkv key/value heads, D head size, E adapter slots.
// Every function returns MG_OK or MG_ERROR; after MG_ERROR, mg_last_error() tells why in one line.
// Sums are taken in float32 whatever the dtype. Outputs never alias inputs unless a function says so.
#pragma once
#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { MG_OK = 0, MG_ERROR = 1 };

typedef enum {
  MG_FLOAT32, MG_BFLOAT16, MG_FLOAT16, MG_FLOAT64, MG_INT32, MG_INT64, MG_BOOL,
  MG_INT8, MG_INT16, MG_UINT8, MG_UINT16, MG_UINT32, MG_UINT64,
  MG_COMPLEX64, MG_COMPLEX128  // can be moved, but not computed with
} mg_dtype;

// Slowest first. AVX512 stands for AVX512-F/BW/DQ/VL with AVX512-BF16; AMX adds AMX-BF16 to it.
typedef enum { MG_PORTABLE, MG_AVX2, MG_AVX512, MG_AMX } mg_instruction_set;

const char* mg_version(void);                       // the package version it was built from
const char* mg_last_error(void);                    // of any thread; "" when nothing failed yet
void mg_set_error(const char* message);             // for shims that refuse a call themselves
mg_instruction_set mg_best_instruction_set(void);   // what this machine can run
mg_instruction_set mg_get_instruction_set(void);    // what the kernels use now (the best, at start)
int mg_set_instruction_set(mg_instruction_set set); // error when this machine cannot run it
int mg_set_num_threads(int num_threads);            // >= 1; at start, the cores it may run on
int mg_get_num_threads(void);

// y (batch, M, N) = x (batch, M, K) times w (batch, N, K)^T + bias (N) or NULL.
// transpose_x: x is (batch, K, M). transpose_w false: w is (batch, K, N).
// float32, bfloat16, float16.
int mg_matmul(const void* x, const void* w, const void* bias, void* y, int64_t batch, int64_t M, int64_t N,
              int64_t K, bool transpose_x, bool transpose_w, mg_dtype dtype);

// y (M, N) = x (M, K) w (N, K)^T + bias (N) or NULL, rounded to y_dtype, + residual (M, N) or NULL. y may be the
// residual. Rows of x are x_step elements apart. float32, bfloat16, float16; w may also be bfloat16 where x and bias are
// float32, y and residual float32 where these are not.
int mg_linear(const void* x, int64_t x_step, const void* w, const void* bias, const void* residual, void* y, int64_t M,
              int64_t N, int64_t K, mg_dtype dtype, mg_dtype w_dtype, mg_dtype y_dtype);

// y (M, N) = silu(x w[:N]^T + bias[:N]) * (x w[N:]^T + bias[N:]), both rounded to dtype before; w (2N, K), bias (2N) or
// NULL; else as mg_linear.
int mg_linear_swiglu(const void* x, int64_t x_step, const void* w, const void* bias, void* y, int64_t M, int64_t N,
                     int64_t K, mg_dtype dtype, mg_dtype w_dtype);

// y (T, N): row t of slot e, that is group_ends[e-1] <= t < group_ends[e], is x[t] (K) times w[e] (K, N), or
// (N, K)^T with transpose_w. Rows after the last group's end become zeros. float32, bfloat16, float16.
int mg_grouped_matmul(const void* x, const void* w, const int64_t* group_ends, void* y, int64_t T, int64_t E,
                      int64_t K, int64_t N, bool transpose_w, mg_dtype dtype);

// Ranks of stacked adapters: a (E, K, num_parts*rank), b[p] (E, rank, sizes[p]); group_ends (E) as in mg_grouped_matmul.
typedef struct {
  const void* a;
  const void* const* b;
  const int64_t* group_ends;
  int64_t E, rank;
} mg_lora_level;

// LoRA of weights whose outputs lie side by side in y (T, sum of sizes): for row t of slot e, as in mg_grouped_matmul,
// and part p, y[t, columns of p] += sum over levels of (x[t] a[e])[p*rank .. (p+1)*rank] b[p][e], in float32 till then.
// Each level has the first slots of the one before, and only its own rows. The sums do not depend on where levels end.
// x (T, K), rows x_step elements apart. Rows after the last group's end stay as they are. float32, bfloat16, float16; y
// may also be float32 where the rest is not.
#define MG_MAX_LORA_LEVELS 32
int mg_add_lora(const void* x, int64_t x_step, const mg_lora_level* levels, int num_levels, const int64_t* sizes,
                int num_parts, void* y, int64_t T, int64_t K, mg_dtype dtype, mg_dtype y_dtype);

// What limits the products: bytes per second of all threads reading data once, whole megabytes of it, and operations
// per second of the multiplications that the instruction set in use has for the dtype; 0 when there is nothing to
// measure.
double mg_measure_read_bandwidth(const void* data, int64_t bytes);
double mg_measure_product_rate(mg_dtype dtype);

// y (rows, H) = x / sqrt(mean(x^2) + epsilon) * gamma (H); rstd (rows) float32 or NULL. y may be x.
int mg_rms_norm(const void* x, const void* gamma, void* y, float* rstd, int64_t rows, int64_t H, float epsilon,
                mg_dtype dtype);

// sum (rows, H) = x1 + x2, rounded to dtype; y = rms_norm(sum). sum may be x1 or x2.
int mg_add_rms_norm(const void* x1, const void* x2, const void* gamma, void* y, float* rstd, void* sum,
                    int64_t rows, int64_t H, float epsilon, mg_dtype dtype);

// y (rows, H) = (x - mean) / sqrt(variance + epsilon) * gamma (H) + beta (H); mean and rstd (rows) float32 or NULL. y may
// be x.
int mg_layer_norm(const void* x, const void* gamma, const void* beta, void* y, float* mean, float* rstd, int64_t rows,
                  int64_t H, float epsilon, mg_dtype dtype);

// query (T, Hq*D), key (T, Hkv*D) rotated into query_out, key_out (which may be the inputs). interleaved: pairs
// (2i, 2i+1), else (i, i+D/2). cos, sin (cos_rows, D). With cos_rows == T, row t belongs to token t. Else they are
// the full table and lengths (B), summing to T, are those of whole prompts: positions count from 0 in each.
int mg_apply_rotary(const void* query, const void* key, const void* cos, const void* sin, const int32_t* lengths,
                    void* query_out, void* key_out, int64_t T, int64_t Hq, int64_t Hkv, int64_t D,
                    int64_t cos_rows, int64_t B, bool interleaved, mg_dtype dtype);

// Copies row t of key and value (T, width bytes) to slot slot_mapping[t] of the caches (num_slots, width bytes).
// Slot -1 skips the row; any other slot outside the cache is an error and nothing is written.
int mg_reshape_and_cache(const void* key, const void* value, void* key_cache, void* value_cache,
                         const int32_t* slot_mapping, int64_t T, int64_t num_slots, int64_t width);

// What lies between the projection to queries, keys and values and attention, in one pass over the rows: heads are
// normalized as by mg_rms_norm where gammas (D) are given (both or none), query and key are rotated as by
// mg_apply_rotary, key and value go to the cache as by mg_reshape_and_cache.
typedef struct {
  const void *query, *key, *value;               // (T, Hq*D), (T, Hkv*D) twice
  int64_t query_step, key_step, value_step;      // elements from row to row
  const void *query_gamma, *key_gamma;           // (D) or NULL
  float epsilon;
  const void *cos, *sin;                         // (T, D)
  bool interleaved;
  const int32_t* slot_mapping;                   // (T)
  void* query_out;                               // (T, Hq*D)
  void *key_cache, *value_cache;                 // (num_slots, Hkv*D)
  int64_t T, Hq, Hkv, D, num_slots;
  mg_dtype dtype;
} mg_rotary_and_cache_call;

int mg_rotary_and_cache(const mg_rotary_and_cache_call* call);

// Causal attention of the last query_lens[b] tokens of sequence b (NULL: 1 each; they sum to T) over its
// context_lens[b] tokens, these included, whose keys and values lie in the blocks of block_tables (B, max_blocks).
// query, y (T, Hq*D); caches (num_blocks, block_size, Hkv, D).
int mg_paged_attention(const void* query, const void* key_cache, const void* value_cache,
                       const int32_t* block_tables, const int32_t* context_lens, const int32_t* query_lens, void* y,
                       int64_t T, int64_t B, int64_t max_blocks, int64_t num_blocks, int64_t block_size, int64_t Hq,
                       int64_t Hkv, int64_t D, float scale, mg_dtype dtype);

// Causal attention within each of B sequences laid end to end: query, y (T, Hq*D); key, value (Tkv, Hkv*D).
// query_ends, kv_ends (B): cumulative lengths. The last query of a sequence sees all its keys.
int mg_flash_attention(const void* query, const void* key, const void* value, const int64_t* query_ends,
                       const int64_t* kv_ends, void* y, int64_t T, int64_t Tkv, int64_t B, int64_t Hq, int64_t Hkv,
                       int64_t D, float scale, mg_dtype dtype);

// y (rows, H) = silu(x[:, :H]) * x[:, H:], x (rows, 2H).
int mg_swiglu(const void* x, void* y, int64_t rows, int64_t H, mg_dtype dtype);
// y may be x.
int mg_silu(const void* x, void* y, int64_t count, mg_dtype dtype);
int mg_gelu(const void* x, void* y, int64_t count, mg_dtype dtype);  // with the tangent: gelu_new, gelu_pytorch_tanh
int mg_gelu_erf(const void* x, void* y, int64_t count, mg_dtype dtype);  // the exact one, with the error function

// y = a op b with numpy's broadcasting: y has shape (ndim), a and b their strides in elements, 0 where they repeat.
// Integers wrap around; bool can be multiplied only. y may be a or b when their shape is y's.
int mg_add(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
           const int64_t* b_strides, mg_dtype dtype);
int mg_mul(const void* a, const void* b, void* y, int ndim, const int64_t* shape, const int64_t* a_strides,
           const int64_t* b_strides, mg_dtype dtype);

// y (count) = the sum of all parts (count); float32, bfloat16, float16. y may be a part.
int mg_sum(const void* const* parts, int num_parts, void* y, int64_t count, mg_dtype dtype);

// Any dtype to any dtype; floats round to nearest even, to integers truncate, to bool compare with 0.
int mg_cast(const void* x, mg_dtype from, void* y, mg_dtype to, int64_t count);

// How files of GGUF hold weights: 32 or, of the last three, 256 elements of a row make a block with scales of its own.
// The numbers are GGUF's.
typedef enum {
  MG_Q4_0 = 2, MG_Q4_1 = 3, MG_Q5_0 = 6, MG_Q5_1 = 7, MG_Q8_0 = 8, MG_Q4_K = 12, MG_Q5_K = 13, MG_Q6_K = 14
} mg_block_type;

// y (count) = the elements of whole blocks x, in float32 and then rounded to dtype: float32, bfloat16, float16.
int mg_dequantize(const void* x, mg_block_type type, void* y, mg_dtype dtype, int64_t count);

// y (columns, rows) = scale * x^T in float32, x (rows, columns), both of float dtypes; steps from row to row in
// elements. The calling thread works alone, beside those that others have called.
int mg_scale_transpose(const void* x, int64_t x_step, mg_dtype from, void* y, int64_t y_step, mg_dtype to,
                       int64_t rows, int64_t columns, float scale);

// Many of them, one after the other.
typedef struct {
  const void* x;
  void* y;
  int64_t x_step, y_step, rows, columns;
  int32_t from, to;  // mg_dtype
  float scale;
} mg_scale_transpose_call;

int mg_scale_transpose_all(const mg_scale_transpose_call* calls, int64_t count);

// y (outer, num_indices, inner bytes) = x (outer, size, inner bytes) at the indices of the middle axis; int32 or
// int64; negative ones count from the end, any other outside is an error.
int mg_gather(const void* x, const void* indices, mg_dtype index_dtype, void* y, int64_t outer, int64_t size,
              int64_t num_indices, int64_t inner);

// y (num_ids, inner bytes) = row id - first_id of table (size, inner bytes) for each id; zeros where there is no such row.
int mg_embedding_lookup(const void* table, const void* ids, mg_dtype id_dtype, void* y, int64_t size, int64_t num_ids,
                        int64_t inner, int64_t first_id);

// The parts p (outer, inner[p] bytes) side by side in y (outer, sum of inner bytes), and back.
int mg_concat(const void* const* parts, const int64_t* inner, int num_parts, void* y, int64_t outer);
int mg_split(const void* x, void* const* parts, const int64_t* inner, int num_parts, int64_t outer);

// How a row of logits gives a token.
typedef enum {
  MG_SAMPLE,  // draws one; the likeliest, and of equal ones that of the lowest id, at temperature 0
  MG_SCORE,   // takes `token`, to tell its log-probabilities
  MG_BEAM     // gives the num_logprobs best by processed log-probability, as the top tokens
} mg_sampling_mode;

typedef enum { MG_SAMPLED, MG_NOT_FINITE, MG_NOTHING_ALLOWED } mg_sampling_status;

// Applied in this order: masks, bans, biases, penalties, temperature, min_p, typical_p, top_k, top_p.
typedef struct {
  const uint32_t* allowed;     // masks of V bits, the lowest of a word first, set where allowed; or NULL
  const uint32_t* grammar;
  const int32_t* banned;
  const int32_t* bias_tokens;
  const float* biases;
  const int32_t* prompt;       // tokens may repeat
  const int32_t* output;
  uint64_t seed, position;     // of the uniform number, mg_philox_uniforms(seed, position)
  int32_t mode, token, num_logprobs;  // -1 logprobs: none, not even the chosen token's
  int32_t num_banned, num_biases, num_prompt, num_output;
  int32_t top_k;               // 0 is all
  int32_t wants_processed;     // the log-probability after all of these as well
  float temperature, top_p, min_p, typical_p;  // 1, 0 and 1 are all
  float repetition_penalty;    // of tokens of prompt and output; 1 is none
  float presence_penalty, frequency_penalty;  // of the output's; 0 is none
} mg_sampling_row;

typedef struct {
  int32_t status, token;
  int32_t rank;  // how many logits are at least this token's
  float logprob;
  float processed_logprob;  // of the distribution that was drawn from; 0 where the choice was greedy; or NAN
} mg_sampled_token;

// sampled (B) from the rows of logits (B, V). Of rows with num_logprobs > 0 also the likeliest tokens and their
// log-probabilities, before any processor, (B, max_logprobs); -1 where there are no more.
int mg_sample(const float* logits, const mg_sampling_row* rows, mg_sampled_token* sampled, int32_t* top_tokens,
              float* top_logprobs, int64_t max_logprobs, int64_t B, int64_t V);

// uniforms[i] = the first of numpy.random.Generator(numpy.random.Philox(key=seed, counter=position + i)).random()
int mg_philox_uniforms(uint64_t seed, uint64_t position, double* uniforms, int64_t count);

int mg_copy(const void* x, void* y, int64_t bytes); // what Reshape comes down to

// *same = whether the bytes at x and y are the same
int mg_compare(const void* x, const void* y, int64_t bytes, int32_t* same);

// *finite = whether no element is infinite or NaN
int mg_are_finite(const void* x, int64_t elements, mg_dtype dtype, int32_t* finite);

// y = x, and *finite as above; by the caller's thread alone, so that other processes have the other cores
int mg_copy_finite(const void* x, void* y, int64_t elements, mg_dtype dtype, int32_t* finite);

// Many copies, shared out among the threads; zeros where x is NULL.
typedef struct {
  const void* x;
  void* y;
  int64_t bytes;
} mg_copy_call;

int mg_copy_all(const mg_copy_call* calls, int64_t count);

// A group of processes, or threads: its ranks make the same calls in the same order, and wait for each other in each.
// Those of one machine meet in shared memory, a file of mg_group_bytes(size) zeros that each has open as `memory`.
typedef struct mg_group mg_group;

int64_t mg_group_bytes(int size);
mg_group* mg_group_join(int memory, int rank, int size);  // NULL is an error
void mg_group_leave(mg_group* group);

// Makes the ranks on this machine part `node` of a group on num_nodes machines, each with as many, before all other
// calls. The first rank of each machine gives its connections with the other first ones, by node; others give NULL.
int mg_group_link(mg_group* group, int node, int num_nodes, const int* sockets);

// Ends all calls of this machine's ranks, those under way and those to come, with this error; the first reason stays.
void mg_group_abort(mg_group* group, const char* reason);

// y (count) = the sum of the ranks' x (count), taken in float32, machine by machine, and the same on all of them;
// float32, bfloat16, float16. y may be x.
int mg_all_reduce(mg_group* group, const void* x, void* y, int64_t count, mg_dtype dtype);

// y (rows, y_width bytes) on the first rank = the ranks' x (rows, width bytes) side by side, cut off at y_width; y is
// not looked at on the others.
int mg_gather_columns(mg_group* group, const void* x, void* y, int64_t rows, int64_t width, int64_t y_width);

// Graphs and ops that this thread runs from now on sum over this group; threads that were told of none, over the one
// named last. NULL is none.
void mg_use_group(mg_group* group);
mg_group* mg_group_in_use(void);

#ifdef __cplusplus
}
#endif
