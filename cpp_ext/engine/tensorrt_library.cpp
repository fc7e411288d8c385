#include "engine/tensorrt_library.h"

#include <dlfcn.h>
#include <memory>

#include "engine/library.h"
#include "src/error.h"

namespace awase::engine {
namespace {

const std::string kMajor = std::to_string(NV_TENSORRT_MAJOR);

LibrarySearch search() {
#ifdef TRT_MAJOR_RTX
  return {"TensorRT-RTX", "tensorrt", "AWASE_TENSORRT_LIBRARY",
          {"libtensorrt_rtx.so." + kMajor, "libtensorrt_rtx.so"}, "tensorrt_rtx", "tensorrt_rtx_libs"};
#else
  return {"TensorRT", "tensorrt", "AWASE_TENSORRT_LIBRARY",
          {"libnvinfer.so." + kMajor, "libnvinfer.so"}, "tensorrt", "tensorrt_libs"};
#endif
}

void *find(void *handle, const std::string &name) {
  void *symbol = dlsym(handle, name.c_str());
  if (!symbol)
    throw Error(AWASE_UNAVAILABLE, "the library opened for " + search().what + " is none: it has no " + name);
  return symbol;
}

std::unique_ptr<TensorRtLibrary> described(void *handle) {
  auto library = std::make_unique<TensorRtLibrary>();
  library->handle = handle;
  library->create = reinterpret_cast<void *(*)(void *, int32_t)>(find(handle, "createInferRuntime_INTERNAL"));
  for (const char *part : {"Major", "Minor", "Patch", "Build"}) {
    const auto number =
        reinterpret_cast<int32_t (*)()>(find(handle, "getInferLib" + std::string(part) + "Version"));
    library->version += (library->version.empty() ? "" : ".") + std::to_string(number());
  }
  if (library->version.rfind(kMajor + ".", 0) != 0)
    throw Error(AWASE_UNAVAILABLE, "the library opened for " + search().what + " is " + library->version +
                                       ", and this awase was built with the headers of " + kMajor);
  return library;
}

}  // namespace

const TensorRtLibrary &tensorrt_library(const char *asked) {
  static std::mutex mutex;
  static const TensorRtLibrary *opened = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (opened) {
    same_library(search(), asked, opened->handle);
    return *opened;
  }
  void *handle = open_library(search(), asked);
  try {
    opened = described(handle).release();
  } catch (...) {
    dlclose(handle);
    throw;
  }
  return *opened;
}

void TensorRtLog::log(Severity severity, char const *text) noexcept {
  if (severity > Severity::kERROR) return;
  try {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (words_.size() < 1000) words_ += (words_.empty() ? "" : "; ") + std::string(text);
  } catch (...) {  // no memory for it: the message says less
  }
}

std::string TensorRtLog::words() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const std::string said = words_.empty() ? "TensorRT gave no reason" : one_line(words_);
  words_.clear();
  return said;
}

}  // namespace awase::engine
