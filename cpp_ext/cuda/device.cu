// Devices, errors and scratch memory of the CUDA operations.
#include "cuda/launch.h"

#include <mutex>
#include <string>
#include <vector>

namespace awase::cuda {
namespace {

// The words of the source travel inside the kernel's arguments, of which there are at most 4 KiB.
struct Upload {
  static constexpr int kThreads = 256, kBlocks = 1, kWords = 960;
  struct Shared {};
  struct Registers {};

  uint32_t *target;
  int count;
  uint32_t words[kWords];

  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t, int thread, Shared &, Registers &) const {
    for (int k = thread; k < count; k += kThreads) target[k] = words[k];
  }
};

}  // namespace

void upload(const void *source, int64_t words, uint32_t *target, const Stream &stream) {
  for (int64_t first = 0; first < words; first += Upload::kWords) {
    Upload kernel;
    kernel.target = target + first;
    kernel.count = int(least<int64_t>(Upload::kWords, words - first));
    std::memcpy(kernel.words, static_cast<const char *>(source) + 4 * first, 4 * size_t(kernel.count));
    launch(kernel, 1, Upload::kThreads, stream);
  }
}

#if defined(AWASE_EMULATE)

int devices() { return 1; }
int device_of(const void *) { return 0; }

Stream::Stream(int device, void *stream) : device_(device), stream_(stream) {}
Stream::~Stream() = default;
int Stream::cores() const { return 4; }

Scratch::Scratch(const Stream &stream, int64_t bytes) : stream_(stream) {
  if (!bytes) return;
  data_ = std::malloc(size_t(bytes));
  if (!data_) throw std::bad_alloc();
  std::memset(data_, 0xFF, size_t(bytes));
}

Scratch::~Scratch() { std::free(data_); }

#else

namespace {

constexpr int kMostDevices = 64;

// What each device is asked once.
struct Device {
  std::once_flag once;
  cudaError_t status = cudaSuccess;
  int cores = 0;
  cudaMemPool_t pool = nullptr;  // null: the device has no pools
};

Device known[kMostDevices];

// A pool of our own: freed scratch stays here for the next call, up to a limit, and no other library's pool changes.
void learn(int number, Device &device) {
  device.status = cudaDeviceGetAttribute(&device.cores, cudaDevAttrMultiProcessorCount, number);
  int pools = 0;
  if (device.status == cudaSuccess)
    device.status = cudaDeviceGetAttribute(&pools, cudaDevAttrMemoryPoolsSupported, number);
  if (device.status != cudaSuccess || !pools) return;
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = number;
  uint64_t keep = uint64_t(256) << 20;
  device.status = cudaMemPoolCreate(&device.pool, &properties);
  if (device.status == cudaSuccess)
    device.status = cudaMemPoolSetAttribute(device.pool, cudaMemPoolAttrReleaseThreshold, &keep);
}

const Device &know(int number) {
  if (number < 0 || number >= kMostDevices)
    throw Error(AWASE_UNAVAILABLE, "CUDA: no device " + std::to_string(number));
  Device &device = known[number];
  std::call_once(device.once, learn, number, std::ref(device));
  check(device.status, "asking a device");
  return device;
}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

void check(cudaError_t status, const char *what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a call that failed leaves its error for the next caller to find: take it away
  switch (status) {
    case cudaErrorMemoryAllocation:
      throw Error(AWASE_OUT_OF_MEMORY, std::string("CUDA: out of device memory (") + what + ")");
    case cudaErrorNoDevice: throw Error(AWASE_UNAVAILABLE, "CUDA: no GPU on this machine");
    case cudaErrorInsufficientDriver: {
      int driver = 0;
      cudaDriverGetVersion(&driver);
      throw Error(AWASE_UNAVAILABLE, driver ? "CUDA: the driver is too old: it serves CUDA " + version(driver) +
                                                  ", expected " + version(CUDART_VERSION) + " or newer"
                                            : "CUDA: no driver on this machine");
    }
    case cudaErrorInvalidDevice: throw Error(AWASE_UNAVAILABLE, "CUDA: no such device on this machine");
    case cudaErrorNoKernelImageForDevice:
      throw Error(AWASE_UNAVAILABLE, "CUDA: this build has no code for this GPU (compute capability 7.5 or newer)");
    default:
      throw Error(AWASE_CUDA_FAILED, std::string("CUDA: ") + cudaGetErrorName(status) + ": " +
                                         cudaGetErrorString(status) + " (" + what + ")");
  }
}

int devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "counting devices");
  if (!count) throw Error(AWASE_UNAVAILABLE, "CUDA: no GPU on this machine");
  return count;
}

int device_of(const void *pointer) {
  cudaPointerAttributes attributes;
  check(cudaPointerGetAttributes(&attributes, pointer), "asking where a pointer points");
  const bool here = attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  return here ? attributes.device : -1;
}

Stream::Stream(int device, void *stream) : device_(device), stream_(stream) {
  int current = 0;
  check(cudaGetDevice(&current), "asking for the current device");
  if (current != device) {
    check(cudaSetDevice(device), "making a device current");
    before_ = current;
  }
}

Stream::~Stream() {
  if (before_ >= 0) cudaSetDevice(before_);
}

int Stream::cores() const { return know(device_).cores; }

Scratch::Scratch(const Stream &stream, int64_t bytes) : stream_(stream) {
  if (!bytes) return;
  const Device &device = know(stream.device());
  pooled_ = device.pool;
  if (pooled_)
    check(cudaMallocFromPoolAsync(&data_, size_t(bytes), device.pool, static_cast<cudaStream_t>(stream.handle())),
          "allocating scratch memory");
  else
    check(cudaMalloc(&data_, size_t(bytes)), "allocating scratch memory");
}

Scratch::~Scratch() {
  if (!data_) return;
  if (pooled_)
    cudaFreeAsync(data_, static_cast<cudaStream_t>(stream_.handle()));
  else
    cudaFree(data_);
}

#endif

}  // namespace awase::cuda
