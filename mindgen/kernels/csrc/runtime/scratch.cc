#include "scratch.h"

#include <new>

namespace mindgen {
namespace {

struct Buffer {
  static constexpr std::align_val_t kAlignment{64};
  void* data = nullptr;
  size_t bytes = 0;

  ~Buffer() { release(); }
  void release() { operator delete(data, kAlignment); }
};

thread_local Buffer buffers[kScratchCount];

}  // namespace

void* scratch(Scratch use, size_t bytes) {
  Buffer& buffer = buffers[use];
  if (buffer.bytes < bytes) {
    buffer.release();
    buffer = {nullptr, 0};
    buffer.data = operator new(bytes, Buffer::kAlignment);
    buffer.bytes = bytes;
  }
  return buffer.data;
}

}  // namespace mindgen
