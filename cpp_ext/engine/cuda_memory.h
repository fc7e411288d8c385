// A GPU as the engine uses it: the current device, a stream, memory. CUDA's errors become awase::Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <string>

namespace awase::engine {

// Throws unless it is success; `doing` goes on "CUDA failed ".
void check_cuda(cudaError_t status, const char *doing);

// The generation of a GPU, e.g. "SM89". Throws where there is no such GPU.
std::string compute_capability(int32_t number);

// Makes a device current in this thread while it lives.
class CurrentDevice {
 public:
  explicit CurrentDevice(int32_t number) noexcept;
  CurrentDevice(const CurrentDevice &) = delete;
  ~CurrentDevice();
  cudaError_t status() const { return status_; }  // to be checked where what follows needs it

 private:
  int before_ = -1;
  cudaError_t status_;
};

// A stream of the current device, which neither waits for the default stream nor is waited for by it.
class CudaStream {
 public:
  CudaStream();
  CudaStream(const CudaStream &) = delete;
  ~CudaStream();
  cudaStream_t handle() const { return handle_; }
  void copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) const;
  void wait() const;

 private:
  cudaStream_t handle_ = nullptr;
};

// Zeroed memory of the current device.
class CudaMemory {
 public:
  CudaMemory(size_t bytes, const CudaStream &stream);
  CudaMemory(CudaMemory &&other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  ~CudaMemory();
  char *data() const { return static_cast<char *>(data_); }

 private:
  void *data_ = nullptr;
};

}  // namespace awase::engine
