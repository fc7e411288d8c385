// Kernels that run on a GPU and, for tests, on a CPU: launching them, their devices and their scratch memory.
//
// A kernel is a plain struct, passed by value, whose members are its arguments:
//
//   struct Kernel {
//     static constexpr int kThreads = 256, kBlocks = 2;  // most threads of a block; blocks meant to share a core (SM)
//     struct Shared { … };     // one for each block, uninitialised
//     struct Registers { … };  // one for each thread, uninitialised; live across phases
//     int phases(int64_t block) const;                     // the same for all threads of a block; may be 0
//     void phase(int p, int64_t block, int thread, Shared &, Registers &) const;
//   };
//
// Between two phases lies a barrier. Within a phase threads run in any order, so a thread may read from `Shared` only
// what was written in earlier phases, or by itself. With AWASE_EMULATE the same structs are compiled for the CPU, where
// a barrier is the end of a loop over the threads: one block after another, each with shared memory and registers of
// its own on the heap (so that AddressSanitizer sees their bounds) and filled with 0xFF (not-a-number). The environment
// variable AWASE_EMULATE_ORDER=reverse turns the order of blocks and threads round.
//
// Products and sums are contracted only where a kernel says so (multiply_add), so that both give the same bits.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "awase/awase.h"
#include "src/error.h"
#include "src/operations.h"

#if defined(AWASE_EMULATE)
#include <cstdlib>
#include <memory>
#include <vector>
#else
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#endif

// ---- for bodies of kernels ----

#ifndef AWASE_HD
#if defined(__CUDACC__)
#define AWASE_HD __host__ __device__
#else
#define AWASE_HD
#endif
#endif

#if defined(__CUDACC__)
#define AWASE_BODY __host__ __device__ __forceinline__
#else
#define AWASE_BODY inline
#endif

#if defined(__CUDA_ARCH__)
#define AWASE_UNROLL _Pragma("unroll")
#else
#define AWASE_UNROLL
#endif

namespace awase::cuda {

#if defined(AWASE_EMULATE)
struct alignas(16) float4 {
  float x, y, z, w;
};
#endif

// a b + c, rounded once.
AWASE_BODY float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
AWASE_BODY double multiply_add(double a, double b, double c) { return fma(a, b, c); }

// 1 / x: on a GPU within 1 ulp for floats, and 0 or infinity where x or 1 / x is subnormal.
AWASE_BODY float reciprocal(float x) {
#if defined(__CUDA_ARCH__)
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}
AWASE_BODY double reciprocal(double x) { return 1.0 / x; }

AWASE_BODY float float_of_bits(uint32_t bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
#endif
}

// A 16-bit float in memory.
struct Half {
  uint16_t bits;
};

AWASE_BODY float to_float(Half half) {
#if defined(__CUDA_ARCH__)
  return __half2float(__ushort_as_half(half.bits));
#else
  const uint32_t sign = uint32_t(half.bits & 0x8000) << 16, exponent = (half.bits >> 10) & 31, rest = half.bits & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * float(rest) * 0x1p-24f;
  return float_of_bits(sign | (exponent == 31 ? 255u << 23 : (exponent + 112) << 23) | rest << 13);
#endif
}
AWASE_BODY float to_float(float x) { return x; }

template <class T>
AWASE_BODY T least(T a, T b) {
  return a < b ? a : b;
}
template <class T>
AWASE_BODY T most(T a, T b) {
  return a < b ? b : a;
}

AWASE_HD constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Vectors of N elements that are loaded and stored at once; N * sizeof(T) is 4, 8 or 16.
template <class T, int N>
struct alignas(N * sizeof(T)) Pack {
  T at[N];
};

inline bool aligned(const void *pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// ---- for launch code ----

// The device and stream of one operation: makes the device current, and the one before again in the end.
class Stream {
 public:
  Stream(int device, void *stream);
  ~Stream();
  Stream(const Stream &) = delete;

  int cores() const;  // multiprocessors
  void *handle() const { return stream_; }
  int device() const { return device_; }

 private:
  int device_;
  [[maybe_unused]] int before_ = -1;  // not emulated
  void *stream_;
};

// Device memory for the kernels of one operation, in the order of its stream: never waits for the device, and can be
// captured in a CUDA graph.
class Scratch {
 public:
  Scratch(const Stream &stream, int64_t bytes);
  ~Scratch();
  Scratch(const Scratch &) = delete;

  template <class T>
  T *at(int64_t byte = 0) const {
    return reinterpret_cast<T *>(static_cast<char *>(data_) + byte);
  }

 private:
  [[maybe_unused]] const Stream &stream_;
  void *data_ = nullptr;
  [[maybe_unused]] bool pooled_ = false;
};

// Copies host memory to device memory as arguments of small kernels. Unlike with cudaMemcpyAsync, whether the source is
// pageable or pinned and whether a graph is being captured makes no difference: it has been read on return.
void upload(const void *source, int64_t words, uint32_t *target, const Stream &stream);

#if defined(AWASE_EMULATE)

inline bool emulate_reversed() {
  const char *order = std::getenv("AWASE_EMULATE_ORDER");
  return order && !std::strcmp(order, "reverse");
}

template <class T>
struct Poisoned {
  explicit Poisoned(int64_t count) : bytes(std::malloc(sizeof(T) * count)) {
    if (!bytes) throw std::bad_alloc();
    std::memset(bytes, 0xFF, sizeof(T) * count);
  }
  ~Poisoned() { std::free(bytes); }
  Poisoned(const Poisoned &) = delete;
  T &operator[](int64_t index) { return static_cast<T *>(bytes)[index]; }
  void *bytes;
};

template <class Kernel>
void launch(const Kernel &kernel, int64_t blocks, int threads, const Stream &) {
  static_assert(Kernel::kBlocks > 0);
  if (threads < 1 || threads > Kernel::kThreads) throw Error(AWASE_INTERNAL, "threads of a block");
  const bool reversed = emulate_reversed();
  for (int64_t k = 0; k < blocks; ++k) {
    const int64_t block = reversed ? blocks - 1 - k : k;
    Poisoned<typename Kernel::Shared> shared(1);
    Poisoned<typename Kernel::Registers> registers(threads);
    const int phases = kernel.phases(block);
    for (int p = 0; p < phases; ++p)
      for (int t = 0; t < threads; ++t) {
        const int thread = reversed ? threads - 1 - t : t;
        kernel.phase(p, block, thread, shared[0], registers[thread]);
      }
  }
}

#else

// Throws what `status` means, unless it is success. `what` was being done.
void check(cudaError_t status, const char *what);

template <class Kernel>
__global__ void __launch_bounds__(Kernel::kThreads, Kernel::kBlocks)
    run(const __grid_constant__ Kernel kernel, const int64_t first) {
  __shared__ typename Kernel::Shared shared;
  typename Kernel::Registers registers;
  const int64_t block = first + blockIdx.x;
  const int phases = kernel.phases(block);
  for (int p = 0; p < phases; ++p) {
    kernel.phase(p, block, int(threadIdx.x), shared, registers);
    if (p + 1 < phases) __syncthreads();
  }
}

template <class Kernel>
void launch(const Kernel &kernel, int64_t blocks, int threads, const Stream &stream) {
  for (int64_t first = 0; first < blocks; first += INT32_MAX) {
    const int64_t rest = blocks - first;
    void *arguments[] = {const_cast<Kernel *>(&kernel), &first};
    const dim3 grid(unsigned(least<int64_t>(rest, INT32_MAX))), block{unsigned(threads)};
    check(cudaLaunchKernel(reinterpret_cast<const void *>(&run<Kernel>), grid, block, arguments, 0,
                           static_cast<cudaStream_t>(stream.handle())),
          "launching a kernel");
  }
}

#endif

}  // namespace awase::cuda
