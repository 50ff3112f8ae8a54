// Groups of processes that meet in shared memory, and where they are on several machines over TCP.
//
// Each rank has two buffers, which it fills in turn, and a count of how often it has. Once all ranks have filled theirs
// as often, everybody reads; as nobody fills a buffer again before all have filled the other, that is one meeting for
// each piece of data, and no more.
//
// On several machines (nodes) the ranks of each meet so, and its first rank speaks with the first ranks of the others.
#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <vector>

#include "dispatch.h"
#include "node_links.h"
#include "patience.h"

using namespace mindgen;

namespace {

constexpr int64_t kBufferBytes = 256 << 10;  // of all ranks together still in the cache of a core or two
constexpr size_t kReasonBytes = 1024;
constexpr int kMaxSize = 1024;

constexpr timespec kLookAgain = {0, 20'000'000};  // for an abort, of which nobody is woken

struct alignas(64) Count {
  std::atomic<uint32_t> filled;
  std::atomic<uint32_t> sleepers;
};

struct alignas(64) Head {
  std::atomic<uint32_t> abort;  // 0 none, 1 its reason is being written, 2 it can be read
  char reason[kReasonBytes];
};

static_assert(std::atomic<uint32_t>::is_always_lock_free, "to be shared by processes");

}  // namespace

struct mg_group {
  char* memory;
  const int rank, size;  // of this node
  uint32_t filled = 0;
  int node = 0, num_nodes = 1;
  std::unique_ptr<NodeLinks> links = nullptr;  // of the node's first rank

  Head& head() { return *reinterpret_cast<Head*>(memory); }
  Count& count(int of) { return reinterpret_cast<Count*>(memory + sizeof(Head))[of]; }
  char* buffer(int of) {
    return memory + sizeof(Head) + size * sizeof(Count) + (2 * of + (filled & 1)) * kBufferBytes;
  }
  bool is_aborted() { return head().abort.load(std::memory_order_acquire) == 2; }

  int fail_aborted() { return fail("%s", head().reason); }

  // To be called once the own buffer is filled; MG_OK when all ranks of this node have filled theirs.
  int meet() {
    Count& own = count(rank);
    own.filled.store(filled);
    if (own.sleepers.load() > 0) syscall(SYS_futex, &own.filled, FUTEX_WAKE, size, nullptr, nullptr, 0);
    for (int peer = 0; peer < size; peer++) {
      if (!wait_for(count(peer))) return fail_aborted();
    }
    return MG_OK;
  }

  int move(std::vector<Transfer> transfers) {
    const auto is_over = [this] { return is_aborted(); };
    if (links->move(std::move(transfers), is_over) == MG_OK) return MG_OK;
    return is_aborted() ? fail_aborted() : MG_ERROR;
  }

 private:
  bool wait_for(Count& peer) {
    const auto has_come = [&] { return static_cast<int32_t>(peer.filled.load() - filled) >= 0; };
    if (is_aborted()) return false;
    Patience patience;
    while (!has_come()) {
      if (patience.stay_awake()) continue;
      if (is_aborted()) return false;
      sleep_until_filled(peer);
    }
    return true;
  }

  void sleep_until_filled(Count& peer) {
    peer.sleepers.fetch_add(1);
    const uint32_t seen = peer.filled.load();
    if (static_cast<int32_t>(seen - filled) < 0) {
      syscall(SYS_futex, &peer.filled, FUTEX_WAIT, seen, &kLookAgain, nullptr, 0);
    }
    peer.sleepers.fetch_sub(1);
  }
};

namespace {

std::atomic<mg_group*> last_group{nullptr};
thread_local mg_group* own_group = nullptr;

int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Copies bytes first..end of x (rows, width) to the columns of y (rows, y_width) from `column` on, as far as there are.
void copy_columns(const char* x, char* y, int64_t first, int64_t end, int64_t width, int64_t y_width, int64_t column) {
  while (first < end) {
    const int64_t row = first / width, within = first % width;
    const int64_t length = smaller(end - first, width - within);
    const int64_t room = y_width - column - within;
    if (room > 0) memcpy(y + row * y_width + column + within, x, smaller(length, room));
    first += length;
    x += length;
  }
}

// y (count) = the sum of what this node's ranks have in their buffers, in float32.
int sum_widened(mg_group* group, float* y, int64_t count, mg_dtype dtype) {
  std::vector<float> widened(group->size * count);
  std::vector<const void*> parts(group->size);
  for (int rank = 0; rank < group->size; rank++) {
    parts[rank] = widened.data() + rank * count;
    if (mg_cast(group->buffer(rank), dtype, widened.data() + rank * count, MG_FLOAT32, count) != MG_OK) return MG_ERROR;
  }
  return mg_sum(parts.data(), group->size, y, count, MG_FLOAT32);
}

// The first rank's buffer = the sum, over all nodes, of what ranks have in their buffers. A node of one rank sends that
// as it is, others send the float32 sum, which nobody has rounded; all add up in the order of the nodes.
int sum_over_nodes(mg_group* group, int64_t count, mg_dtype dtype) {
  const bool is_widened = dtype != MG_FLOAT32 && group->size > 1;
  const int64_t bytes = count * (dtype == MG_FLOAT32 || is_widened ? 4 : 2);
  std::vector<char> memory(group->num_nodes * bytes);
  std::vector<const void*> parts(group->num_nodes);
  for (int node = 0; node < group->num_nodes; node++) parts[node] = memory.data() + node * bytes;
  char* const own = memory.data() + group->node * bytes;
  if (is_widened) {
    if (sum_widened(group, reinterpret_cast<float*>(own), count, dtype) != MG_OK) return MG_ERROR;
  } else {
    std::vector<const void*> buffers(group->size);
    for (int rank = 0; rank < group->size; rank++) buffers[rank] = group->buffer(rank);
    if (mg_sum(buffers.data(), group->size, own, count, dtype) != MG_OK) return MG_ERROR;
  }
  std::vector<Transfer> transfers;
  for (int node = 0; node < group->num_nodes; node++) {
    if (node == group->node) continue;
    transfers.push_back({node, true, own, bytes});
    transfers.push_back({node, false, memory.data() + node * bytes, bytes});
  }
  if (group->move(std::move(transfers)) != MG_OK) return MG_ERROR;
  group->filled++;
  if (!is_widened) return mg_sum(parts.data(), group->num_nodes, group->buffer(0), count, dtype);
  if (mg_sum(parts.data(), group->num_nodes, own, count, MG_FLOAT32) != MG_OK) return MG_ERROR;
  return mg_cast(own, MG_FLOAT32, group->buffer(0), dtype, count);
}

// y (count) = the sum of what the ranks of all nodes have in their buffers.
int sum_buffers(mg_group* group, void* y, int64_t count, mg_dtype dtype) {
  if (group->meet() != MG_OK) return MG_ERROR;
  if (group->num_nodes == 1) {
    std::vector<const void*> parts(group->size);
    for (int rank = 0; rank < group->size; rank++) parts[rank] = group->buffer(rank);
    return mg_sum(parts.data(), group->size, y, count, dtype);
  }
  if (group->rank > 0) {
    group->filled++;
  } else if (sum_over_nodes(group, count, dtype) != MG_OK) {
    return MG_ERROR;
  }
  if (group->meet() != MG_OK) return MG_ERROR;
  memcpy(y, group->buffer(0), count * (dtype == MG_FLOAT32 ? 4 : 2));
  return MG_OK;
}

// What a rank of this node has brought of bytes first..end; the first rank fills no buffer for itself.
char* gathered(mg_group* group, int rank, const char* own, int64_t first) {
  return rank == 0 ? const_cast<char*>(own) + first : group->buffer(rank);
}

// This node's parts of a piece, to the first node.
int send_parts(mg_group* group, const char* own, int64_t first, int64_t end) {
  for (int rank = 0; rank < group->size; rank++) {
    if (group->move({{0, true, gathered(group, rank, own, first), end - first}}) != MG_OK) return MG_ERROR;
  }
  return MG_OK;
}

}  // namespace

extern "C" {

int64_t mg_group_bytes(int size) { return sizeof(Head) + size * (sizeof(Count) + 2 * kBufferBytes); }

mg_group* mg_group_join(int memory, int rank, int size) {
  if (size < 1 || size > kMaxSize || rank < 0 || rank >= size) {
    fail("group_join: rank %d of %d", rank, size);
    return nullptr;
  }
  struct stat status;
  if (fstat(memory, &status) != 0 || status.st_size < mg_group_bytes(size)) {
    fail("group_join: the shared memory is no file of %lld bytes", (long long)mg_group_bytes(size));
    return nullptr;
  }
  void* const mapped = mmap(nullptr, mg_group_bytes(size), PROT_READ | PROT_WRITE, MAP_SHARED, memory, 0);
  if (mapped == MAP_FAILED) {
    fail("group_join: cannot map the shared memory: %s", strerror(errno));
    return nullptr;
  }
  return new mg_group{static_cast<char*>(mapped), rank, size};
}

int mg_group_link(mg_group* group, int node, int num_nodes, const int* sockets) {
  if (num_nodes < 1 || num_nodes > kMaxSize || node < 0 || node >= num_nodes) {
    return fail("group_link: node %d of %d", node, num_nodes);
  }
  if (group->rank == 0 && num_nodes > 1 && !sockets) return fail("group_link: sockets is NULL");
  group->node = node;
  group->num_nodes = num_nodes;
  if (group->rank == 0 && num_nodes > 1) group->links = std::make_unique<NodeLinks>(sockets, num_nodes, node);
  return MG_OK;
}

void mg_group_leave(mg_group* group) {
  if (!group) return;
  mg_group* expected = group;
  last_group.compare_exchange_strong(expected, nullptr);
  if (own_group == group) own_group = nullptr;
  munmap(group->memory, mg_group_bytes(group->size));
  delete group;
}

void mg_group_abort(mg_group* group, const char* reason) {
  uint32_t none = 0;
  if (!group->head().abort.compare_exchange_strong(none, 1)) return;
  snprintf(group->head().reason, kReasonBytes, "%s", reason);
  group->head().abort.store(2, std::memory_order_release);
}

int mg_all_reduce(mg_group* group, const void* x, void* y, int64_t count, mg_dtype dtype) {
  if (!group) return fail("all_reduce: this process is in no group");
  if (!is_compute_dtype(dtype)) return fail("all_reduce: dtype must be float32, bfloat16 or float16");
  if (count < 0 || (count > 0 && (!x || !y))) {
    return fail("all_reduce: %lld elements, or a buffer is NULL", (long long)count);
  }
  const int64_t item = dtype == MG_FLOAT32 ? 4 : 2;
  for (int64_t first = 0; first < count * item; first += kBufferBytes) {
    const int64_t bytes = smaller(kBufferBytes, count * item - first);
    group->filled++;
    memcpy(group->buffer(group->rank), static_cast<const char*>(x) + first, bytes);
    if (sum_buffers(group, static_cast<char*>(y) + first, bytes / item, dtype) != MG_OK) return MG_ERROR;
  }
  return MG_OK;
}

int mg_gather_columns(mg_group* group, const void* x, void* y, int64_t rows, int64_t width, int64_t y_width) {
  if (!group) return fail("gather_columns: this process is in no group");
  if (rows < 0 || width < 1 || y_width < 1) {
    return fail("gather_columns: %lld rows of %lld and %lld bytes", (long long)rows, (long long)width,
                (long long)y_width);
  }
  const bool is_root = group->rank == 0 && group->node == 0;
  if (rows > 0 && (!x || (!y && is_root))) return fail("gather_columns: x or y is NULL");
  const char* const own = static_cast<const char*>(x);
  std::vector<char> received(is_root && group->num_nodes > 1 ? smaller(kBufferBytes, rows * width) : 0);
  for (int64_t first = 0; first < rows * width; first += kBufferBytes) {
    const int64_t end = smaller(first + kBufferBytes, rows * width);
    group->filled++;
    if (group->rank > 0) memcpy(group->buffer(group->rank), own + first, end - first);
    if (group->meet() != MG_OK) return MG_ERROR;
    if (group->links && !is_root && send_parts(group, own, first, end) != MG_OK) return MG_ERROR;
    for (int rank = 0; is_root && rank < group->size * group->num_nodes; rank++) {
      const int node = rank / group->size;
      if (node > 0 && group->move({{node, false, received.data(), end - first}}) != MG_OK) return MG_ERROR;
      const char* const part = node > 0 ? received.data() : gathered(group, rank, own, first);
      copy_columns(part, static_cast<char*>(y), first, end, width, y_width, rank * width);
    }
  }
  return MG_OK;
}

void mg_use_group(mg_group* group) {
  own_group = group;
  last_group = group;
}

mg_group* mg_group_in_use(void) { return own_group ? own_group : last_group.load(); }

}  // extern "C"
