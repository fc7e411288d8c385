// TensorRT's shared library, opened when the program runs: TensorRT 10 or later, or TensorRT-RTX. The headers that this
// is built with say which, since the library's classes are laid out as they say.
#pragma once

#include <NvInfer.h>
#include <cstdint>
#include <mutex>
#include <string>

namespace awase::engine {

#ifdef TRT_MAJOR_RTX
constexpr const char *kTensorRtFlavour = "tensorrt-rtx";
#else
constexpr const char *kTensorRtFlavour = "tensorrt";
static_assert(NV_TENSORRT_MAJOR >= 10, "the engine needs the headers of TensorRT 10 or newer, or of TensorRT-RTX");
#endif

struct TensorRtLibrary {
  void *handle;
  std::string version;                                 // "10.13.0.35"
  void *(*create)(void *logger, int32_t of_headers);   // makes an IRuntime, or NULL
};

// A process uses one, and keeps it. `asked`: its path, or NULL to look for it. Throws awase::Error.
const TensorRtLibrary &tensorrt_library(const char *asked);

// Keeps errors instead of printing them: TensorRT returns null or false and says why here.
class TensorRtLog : public nvinfer1::ILogger {
 public:
  void log(Severity severity, char const *text) noexcept override;

  // What was said since the last call, in one line.
  std::string words();

 private:
  std::mutex mutex_;
  std::string words_;
};

}  // namespace awase::engine
