// A stand-in for TensorRT's library. An engine is a text: "stand-in engine", then a line for each tensor, "input NAME
// DTYPE MIN MAX SIZES..." or "output NAME DTYPE SIZES...". Value j of a sample of output k is (k + 1) z[j % D] + j / 8, z
// being the first input's sample of D values. What TensorRT forbids is refused here, and said to the logger.
#include <NvInfer.h>
#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <vector>

#include "stand_in.h"

using namespace nvinfer1;

namespace {

struct Tensor {
  std::string name;
  bool input;
  int32_t dtype;
  int64_t smallest, largest;
  std::vector<int64_t> shape;

  int64_t size() const {
    int64_t count = 1;
    for (int64_t axis : shape) count *= axis;
    return count;
  }
  Dims dims(int64_t batch) const {
    Dims dims{};
    dims.nbDims = int32_t(shape.size()) + 1;
    dims.d[0] = batch;
    std::copy(shape.begin(), shape.end(), dims.d + 1);
    return dims;
  }
};

struct Alive {
  Alive() { stand_in_alive(1); }
  Alive(const Alive &) = delete;
  ~Alive() { stand_in_alive(-1); }
};

std::mutex mutex;
std::string batches;  // that were run

class Context : public IExecutionContext, Alive {
 public:
  Context(std::vector<Tensor> tensors, ILogger &log) : tensors_(std::move(tensors)), log_(log) {}

  bool setInputShape(char const *name, Dims const &dims) noexcept override {
    if (fails("setInputShape")) return refuse("not this shape");
    for (const Tensor &tensor : tensors_) {
      if (!tensor.input || tensor.name != name) continue;
      const int64_t batch = dims.d[0];
      const Dims expected = tensor.dims(batch);
      if (dims.nbDims != expected.nbDims || !std::equal(dims.d, dims.d + dims.nbDims, expected.d) ||
          batch < tensor.smallest || batch > tensor.largest)
        return refuse("a shape outside the profile");
      batches_[tensor.name] = batch;
      return true;
    }
    return refuse("no such input");
  }

  bool setTensorAddress(char const *name, void *data) noexcept override {
    if (reinterpret_cast<uintptr_t>(data) % 256) return refuse("an address not aligned to 256 bytes");
    if (std::none_of(tensors_.begin(), tensors_.end(), [&](const Tensor &tensor) { return tensor.name == name; }))
      return refuse("no such tensor");
    addresses_[name] = static_cast<float *>(data);
    return true;
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (fails("enqueueV3")) return refuse("a kernel\n failed");
    const int64_t batch = batches_.begin()->second;
    for (const Tensor &tensor : tensors_)
      if (!stand_in_on_device(addresses_[tensor.name], size_t(batch * tensor.size()) * sizeof(float)))
        return refuse("memory that is not the device's or too small");
    {
      const std::lock_guard<std::mutex> lock(mutex);
      batches += (batches.empty() ? "" : " ") + std::to_string(batch);
    }
    return enqueue_on(stream, [tensors = tensors_, addresses = addresses_, batch] {
      const auto source = std::find_if(tensors.begin(), tensors.end(), [](const Tensor &t) { return t.input; });
      int number = 0;
      for (const Tensor &tensor : tensors) {
        if (tensor.input) continue;
        ++number;
        for (int64_t n = 0; n < batch; ++n)
          for (int64_t j = 0; j < tensor.size(); ++j)
            addresses.at(tensor.name)[n * tensor.size() + j] =
                number * addresses.at(source->name)[n * source->size() + j % source->size()] + float(j) / 8;
      }
    });
  }

 private:
  bool refuse(const char *why) {
    log_.log(ILogger::Severity::kERROR, why);
    return false;
  }

  std::vector<Tensor> tensors_;
  ILogger &log_;
  std::map<std::string, int64_t> batches_;
  std::map<std::string, float *> addresses_;
};

#ifdef STAND_IN_RTX
class Config : public IRuntimeConfig, Alive {
 public:
  void setDynamicShapesKernelSpecializationStrategy(DynamicShapesKernelSpecializationStrategy chosen) noexcept override {
    strategy = chosen;
  }
  DynamicShapesKernelSpecializationStrategy strategy = DynamicShapesKernelSpecializationStrategy::kLAZY;
};
#endif

class Engine : public ICudaEngine, Alive {
 public:
  Engine(std::vector<Tensor> tensors, ILogger &log) : tensors_(std::move(tensors)), log_(log) {}
  int32_t getNbIOTensors() const noexcept override { return int32_t(tensors_.size()); }
  char const *getIOTensorName(int32_t k) const noexcept override { return tensors_[size_t(k)].name.c_str(); }
  TensorIOMode getTensorIOMode(char const *name) const noexcept override {
    return find(name).input ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT;
  }
  DataType getTensorDataType(char const *name) const noexcept override { return DataType(find(name).dtype); }
  Dims getTensorShape(char const *name) const noexcept override { return find(name).dims(-1); }
  Dims getProfileShape(char const *name, int32_t, OptProfileSelector end) const noexcept override {
    return find(name).dims(end == OptProfileSelector::kMAX ? find(name).largest : find(name).smallest);
  }
#ifdef STAND_IN_RTX
  IRuntimeConfig *createRuntimeConfig() noexcept override { return new Config; }
  IExecutionContext *createExecutionContext(IRuntimeConfig *config) noexcept override {
    if (static_cast<Config *>(config)->strategy != DynamicShapesKernelSpecializationStrategy::kEAGER) return nullptr;
    return new Context(tensors_, log_);
  }
#else
  IExecutionContext *createExecutionContext() noexcept override {
    return fails("createExecutionContext") ? nullptr : new Context(tensors_, log_);
  }
#endif

 private:
  const Tensor &find(const std::string &name) const {
    return *std::find_if(tensors_.begin(), tensors_.end(), [&](const Tensor &tensor) { return tensor.name == name; });
  }
  std::vector<Tensor> tensors_;
  ILogger &log_;
};

class Runtime : public IRuntime, Alive {
 public:
  explicit Runtime(ILogger &log) : log_(log) {}
  ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char *>(blob), size));
    std::string line;
    std::getline(text, line);
    if (line != "stand-in engine") {
      log_.log(ILogger::Severity::kINFO, "this is not to be heard");
      log_.log(ILogger::Severity::kERROR, "Serialization assertion failed");
      log_.log(ILogger::Severity::kINTERNAL_ERROR, "magic tag\ndoes not match");
      return nullptr;
    }
    std::vector<Tensor> tensors;
    while (std::getline(text, line)) {
      std::istringstream words(line);
      std::string side;
      Tensor tensor{};
      words >> side >> tensor.name >> tensor.dtype;
      tensor.input = side == "input";
      if (tensor.input) words >> tensor.smallest >> tensor.largest;
      for (int64_t axis; words >> axis;) tensor.shape.push_back(axis);
      tensors.push_back(tensor);
    }
    return new Engine(tensors, log_);
  }

 private:
  ILogger &log_;
};

int part(int number) {
#ifdef STAND_IN_RTX
  std::istringstream version(stand_in("VERSION", "1.7.1.116"));
#else
  std::istringstream version(stand_in("VERSION", "10.13.0.35"));
#endif
  std::string word;
  for (int k = 0; k <= number; ++k) std::getline(version, word, '.');
  return std::stoi(word);
}

}  // namespace

EXPORT void *createInferRuntime_INTERNAL(void *logger, int32_t version) noexcept {
  auto &log = *static_cast<ILogger *>(logger);
  if (version == NV_TENSORRT_VERSION && !fails("createInferRuntime")) return new Runtime(log);
  log.log(ILogger::Severity::kERROR, "CUDA initialization failure");
  return nullptr;
}
EXPORT int32_t getInferLibMajorVersion() noexcept { return part(0); }
EXPORT int32_t getInferLibMinorVersion() noexcept { return part(1); }
EXPORT int32_t getInferLibPatchVersion() noexcept { return part(2); }
EXPORT int32_t getInferLibBuildVersion() noexcept { return part(3); }

// The batches that were run since the last call, e.g. "8 8 4".
EXPORT const char *stand_in_batches() {
  static std::string last;
  const std::lock_guard<std::mutex> lock(mutex);
  last.swap(batches);
  batches.clear();
  return last.c_str();
}
