// What the two stand-ins share: the environment variables that steer them, and a stream's queue.
#pragma once

#include <cstdlib>
#include <cuda_runtime_api.h>
#include <functional>
#include <string>

// STAND_IN_GPUS (2), STAND_IN_CAPABILITY (8.9), STAND_IN_VERSION (10.13.0.35, or 1.7.1.116), and STAND_IN_FAIL: the name
// of what is to fail.
inline std::string stand_in(const char *name, const char *otherwise) {
  const char *value = std::getenv((std::string("STAND_IN_") + name).c_str());
  return value ? value : otherwise;
}

inline bool fails(const char *name) { return stand_in("FAIL", "") == name; }

#define EXPORT extern "C" __attribute__((visibility("default")))

// Work on a stream is done when the stream is waited for, not before: whoever does not wait sees no result.
__attribute__((visibility("default"))) bool enqueue_on(cudaStream_t stream, std::function<void()> work);

// All of it is memory of the device that is current.
EXPORT int stand_in_on_device(const void *data, size_t bytes);

// Pieces of work on streams that nobody has waited for.
EXPORT int stand_in_pending(int change);

// Things made less things destroyed: memory, streams and TensorRT's objects.
EXPORT int stand_in_alive(int change);
