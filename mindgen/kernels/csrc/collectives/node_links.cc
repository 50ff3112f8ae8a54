#include "node_links.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "dispatch.h"
#include "patience.h"

namespace mindgen {
namespace {

constexpr int kLookAgainMilliseconds = 20;  // for an abort
// When a connection ends, whoever watches the node knows a better reason soon.
constexpr auto kReasonComes = std::chrono::seconds(3);

enum Progress { kNone, kSome, kEnded };

Progress advance(int socket, Transfer& transfer) {
  const ssize_t moved = transfer.is_sent ? send(socket, transfer.data, transfer.bytes, MSG_DONTWAIT | MSG_NOSIGNAL)
                                         : recv(socket, transfer.data, transfer.bytes, MSG_DONTWAIT);
  if (moved > 0) {
    transfer.data += moved;
    transfer.bytes -= moved;
    return kSome;
  }
  if (moved == 0) errno = ECONNRESET;
  return moved < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? kNone : kEnded;
}

int report_end(int node, const std::function<bool()>& is_aborted) {
  const int reason = errno;
  const auto start = std::chrono::steady_clock::now();
  while (!is_aborted() && std::chrono::steady_clock::now() - start < kReasonComes) {
    std::this_thread::sleep_for(std::chrono::milliseconds(kLookAgainMilliseconds));
  }
  return fail("the connection with node %d has ended: %s", node, strerror(reason));
}

}  // namespace

NodeLinks::NodeLinks(const int* sockets, int num_nodes, int node) : sockets_(num_nodes, -1) {
  for (int peer = 0; peer < num_nodes; peer++) {
    if (peer != node) sockets_[peer] = fcntl(sockets[peer], F_DUPFD_CLOEXEC, 0);
  }
}

NodeLinks::~NodeLinks() {
  for (const int socket : sockets_) {
    if (socket >= 0) close(socket);
  }
}

int NodeLinks::move(std::vector<Transfer> transfers, const std::function<bool()>& is_aborted) {
  Patience patience;
  while (true) {
    std::vector<pollfd> waiting;
    for (Transfer& each : transfers) {
      const int socket = sockets_[each.node];
      Progress progress = kNone;
      while (each.bytes > 0 && (progress = advance(socket, each)) == kSome) patience.renew();
      if (progress == kEnded) return report_end(each.node, is_aborted);
      if (each.bytes > 0) waiting.push_back({socket, static_cast<short>(each.is_sent ? POLLOUT : POLLIN), 0});
    }
    if (waiting.empty()) return MG_OK;
    if (patience.stay_awake()) continue;
    if (is_aborted()) return fail("the group has been aborted");
    poll(waiting.data(), waiting.size(), kLookAgainMilliseconds);
  }
}

}  // namespace mindgen
