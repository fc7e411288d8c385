// A stand-in for CUDA's runtime: "device memory" is the host's, kept apart by its addresses, each block of one device.
// What CUDA forbids is an error here: memory of another device or kind, a stream of another device.
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "stand_in.h"

struct CUstream_st {
  int device;
  std::vector<std::function<void()>> work;
};

namespace {

struct Block {
  size_t bytes;
  int device;
};

std::mutex mutex;
std::map<const char *, Block> blocks;
thread_local int current = 0;

int devices() { return std::stoi(stand_in("GPUS", "2")); }

// The device of a range of memory: -1 for the host's, -2 for one that leaves its block.
int device_of(const void *data, size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex);
  const auto *at = static_cast<const char *>(data);
  auto next = blocks.upper_bound(at);
  if (next == blocks.begin()) return -1;
  const auto &[start, block] = *--next;
  if (at >= start + block.bytes) return -1;
  return at + bytes <= start + block.bytes ? block.device : -2;
}

}  // namespace

bool enqueue_on(cudaStream_t stream, std::function<void()> work) {
  if (!stream || stream->device != current) return false;
  stream->work.push_back(std::move(work));
  stand_in_pending(1);
  return true;
}

EXPORT int stand_in_on_device(const void *data, size_t bytes) { return device_of(data, bytes) == current; }

EXPORT int stand_in_pending(int change) {
  static int pending = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  return pending += change;
}

EXPORT int stand_in_alive(int change) {
  static int alive = 0;
  const std::lock_guard<std::mutex> lock(mutex);
  return alive += change;
}

extern "C" {

const char *cudaGetErrorString(cudaError_t error) {
  return error == cudaErrorMemoryAllocation ? "out of memory" : error == cudaErrorNoDevice ? "no device" : "failed";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }

cudaError_t cudaGetDeviceCount(int *count) {
  *count = devices();
  return *count ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDevice(int *device) {
  *device = current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  current = device;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
  if (device < 0 || device >= devices()) return cudaErrorInvalidDevice;
  const std::string capability = stand_in("CAPABILITY", "8.9");
  const size_t dot = capability.find('.');
  *value = std::stoi(attribute == cudaDevAttrComputeCapabilityMajor ? capability.substr(0, dot)
                                                                    : capability.substr(dot + 1));
  return cudaSuccess;
}

cudaError_t cudaMalloc(void **data, size_t bytes) {
  if (fails("cudaMalloc")) return cudaErrorMemoryAllocation;
  if (posix_memalign(data, 256, bytes ? bytes : 1)) return cudaErrorMemoryAllocation;
  std::memset(*data, 0xFF, bytes);
  stand_in_alive(1);
  const std::lock_guard<std::mutex> lock(mutex);
  blocks[static_cast<char *>(*data)] = {bytes, current};
  return cudaSuccess;
}
cudaError_t cudaFree(void *data) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    if (!blocks.erase(static_cast<char *>(data))) return cudaErrorInvalidValue;
  }
  std::free(data);
  stand_in_alive(-1);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void *data, int value, size_t bytes, cudaStream_t stream) {
  if (device_of(data, bytes) != current) return cudaErrorInvalidValue;
  return enqueue_on(stream, [=] { std::memset(data, value, bytes); }) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  if (fails("cudaMemcpyAsync")) return cudaErrorUnknown;
  const int source = kind == cudaMemcpyHostToDevice ? -1 : current, target = kind == cudaMemcpyDeviceToHost ? -1 : current;
  if (device_of(from, bytes) != source || device_of(to, bytes) != target) return cudaErrorInvalidValue;
  return enqueue_on(stream, [=] { std::memcpy(to, from, bytes); }) ? cudaSuccess : cudaErrorInvalidResourceHandle;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
  if (flags != cudaStreamNonBlocking) return cudaErrorInvalidValue;
  *stream = new CUstream_st{current, {}};
  stand_in_alive(1);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  stand_in_alive(-1);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->device != current) return cudaErrorInvalidResourceHandle;
  for (const auto &work : stream->work) work();
  stand_in_pending(-int(stream->work.size()));
  stream->work.clear();
  return fails("cudaStreamSynchronize") ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // extern "C"
