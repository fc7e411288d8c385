#include "engine/cuda_memory.h"

#include "src/error.h"

namespace awase::engine {

void check_cuda(cudaError_t status, const char *doing) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // forgotten: the caller's own next check must not find it
  throw Error(status == cudaErrorMemoryAllocation ? AWASE_OUT_OF_MEMORY : AWASE_CUDA_FAILED,
              std::string("CUDA failed ") + doing + ": " + cudaGetErrorString(status));
}

std::string compute_capability(int32_t number) {
  int count = 0, major = 0, minor = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  const std::string what = "device tensorrt:" + std::to_string(number) + ": ";
  if (status != cudaSuccess) {
    cudaGetLastError();
    throw Error(AWASE_UNAVAILABLE, what + "CUDA finds no GPU: " + cudaGetErrorString(status));
  }
  if (number >= count)
    throw Error(AWASE_UNAVAILABLE, what + "this machine has " + std::to_string(count) + " GPU(s), numbered from 0");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, number), "asking what a GPU is");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, number), "asking what a GPU is");
  return "SM" + std::to_string(major) + std::to_string(minor);
}

CurrentDevice::CurrentDevice(int32_t number) noexcept {
  int current = 0;
  status_ = cudaGetDevice(&current);
  if (status_ != cudaSuccess || current == number) return;
  status_ = cudaSetDevice(number);
  if (status_ == cudaSuccess) before_ = current;
}

CurrentDevice::~CurrentDevice() {
  if (before_ >= 0) cudaSetDevice(before_);
}

CudaStream::CudaStream() {
  check_cuda(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking), "making a stream");
}

CudaStream::~CudaStream() { cudaStreamDestroy(handle_); }

void CudaStream::copy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) const {
  check_cuda(cudaMemcpyAsync(to, from, bytes, kind, handle_), "copying a tensor");
}

void CudaStream::wait() const { check_cuda(cudaStreamSynchronize(handle_), "running"); }

CudaMemory::CudaMemory(size_t bytes, const CudaStream &stream) {
  check_cuda(cudaMalloc(&data_, bytes), "making room for a batch");
  const cudaError_t status = cudaMemsetAsync(data_, 0, bytes, stream.handle());
  if (status != cudaSuccess) cudaFree(data_);
  check_cuda(status, "clearing memory");
}

CudaMemory::~CudaMemory() {
  if (data_) cudaFree(data_);
}

}  // namespace awase::engine
