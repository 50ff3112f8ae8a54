// TCP connections between the first ranks of a group's nodes.
#pragma once
#include <stdint.h>

#include <functional>
#include <vector>

namespace mindgen {

// Bytes on their way to a node, or from it.
struct Transfer {
  int node;
  bool is_sent;
  char* data;
  int64_t bytes;
};

class NodeLinks {
 public:
  // Sockets by node, one of them this node's own, which is not looked at; they are duplicated.
  NodeLinks(const int* sockets, int num_nodes, int node);
  ~NodeLinks();
  NodeLinks(const NodeLinks&) = delete;

  // Brings all of these to their ends, at most one each way for each node; MG_OK, or MG_ERROR and a message when
  // is_aborted says so or a connection has ended.
  int move(std::vector<Transfer> transfers, const std::function<bool()>& is_aborted);

 private:
  std::vector<int> sockets_;
};

}  // namespace mindgen
