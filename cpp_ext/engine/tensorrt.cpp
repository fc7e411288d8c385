// Written against TensorRT's documented interface; compiled and run with stand-ins for it only, never on a GPU.
#include "engine/tensorrt.h"

#include <algorithm>
#include <mutex>

#include "engine/cuda_memory.h"
#include "engine/tensorrt_fit.h"
#include "engine/tensorrt_library.h"
#include "src/check.h"
#include "src/error.h"

namespace awase::engine {
namespace {

// ---- its words for ours ----

bool same_dtype(nvinfer1::DataType type, awase_dtype dtype) {
  switch (type) {
    case nvinfer1::DataType::kFLOAT: return dtype == AWASE_FLOAT32;
    case nvinfer1::DataType::kHALF: return dtype == AWASE_FLOAT16;
    case nvinfer1::DataType::kUINT8: return dtype == AWASE_UINT8;
    case nvinfer1::DataType::kINT64: return dtype == AWASE_INT64;
    default: return false;
  }
}

std::vector<int64_t> shape_of(const nvinfer1::Dims &dims) {
  return {dims.d, dims.d + std::clamp<int64_t>(dims.nbDims, 0, nvinfer1::Dims::MAX_DIMS)};
}

nvinfer1::Dims dims_of(int64_t batch, const Port &port) {
  nvinfer1::Dims dims{};
  dims.nbDims = int32_t(port.shape.size()) + 1;
  dims.d[0] = batch;
  std::copy(port.shape.begin(), port.shape.end(), dims.d + 1);
  return dims;
}

// ---- the engine ----

class TensorRtModel : public Model {
 public:
  TensorRtModel(const Bundle &bundle, const Graph &graph, const Variant &variant, const Engine &engine, int32_t gpu,
                const char *asked)
      : path_(bundle.folder + "/" + engine.file.name), inputs_(graph.inputs), outputs_(graph.outputs), gpu_(gpu) {
    check_fresh(path_, engine, variant);
    sizes_ = batch_sizes(path_, engine, inputs_);
    check_flavour(path_, engine, kTensorRtFlavour);
    const TensorRtLibrary &library = tensorrt_library(asked);
    check_version(path_, engine, library.version);
    check_gpu(path_, engine, gpu, compute_capability(gpu));
    const CurrentDevice current(gpu_);
    check_cuda(current.status(), "making a GPU current");
    parts_ = std::make_unique<Parts>();
    try {
      load(library, bundle.read(engine.file));
      check_ports(engine);
      prepare();
    } catch (...) {
      parts_.reset();  // while its GPU is current
      throw;
    }
  }

  ~TensorRtModel() override {
    const CurrentDevice current(gpu_);
    parts_.reset();
  }

  void run(const awase_tensor *inputs, const awase_tensor *outputs) const override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const CurrentDevice current(gpu_);
    check_cuda(current.status(), "making a GPU current");
    const int64_t batch = inputs[0].shape[0];
    try {
      for (int64_t first = 0; first < batch; first += sizes_.back())
        enqueue(inputs, outputs, first, std::min(sizes_.back(), batch - first));
    } catch (...) {
      cudaStreamSynchronize(parts_->stream.handle());  // what is under way uses the caller's memory
      throw;
    }
    parts_->stream.wait();
  }

 private:
  // Each is used by those after it, which go before it.
  struct Parts {
    TensorRtLog log;
    std::unique_ptr<nvinfer1::IRuntime> runtime;
    std::unique_ptr<nvinfer1::ICudaEngine> engine;
#ifdef TRT_MAJOR_RTX
    std::unique_ptr<nvinfer1::IRuntimeConfig> config;
#endif
    CudaStream stream;
    std::vector<CudaMemory> inputs, outputs;  // for the largest batch
    std::unique_ptr<nvinfer1::IExecutionContext> context;
  };

  [[noreturn]] void refuse_engine(const std::string &what) const {
    throw Error(AWASE_UNAVAILABLE, path_ + " " + what + ": " + parts_->log.words());
  }

  void load(const TensorRtLibrary &library, const std::string &bytes) {
    Parts &p = *parts_;
    p.runtime.reset(static_cast<nvinfer1::IRuntime *>(
        library.create(static_cast<nvinfer1::ILogger *>(&p.log), int32_t(NV_TENSORRT_VERSION))));
    if (!p.runtime) refuse_engine("cannot be loaded");
    p.engine.reset(p.runtime->deserializeCudaEngine(bytes.data(), bytes.size()));
    if (!p.engine) refuse_engine("cannot be loaded");
  }

  // The engine must be what the bundle says: memory is made by that.
  void check_ports(const Engine &entry) const {
    const nvinfer1::ICudaEngine &engine = *parts_->engine;
    const auto wrong = [&](const std::string &what) {
      throw Error(AWASE_UNAVAILABLE, path_ + ": " + what + "; " + export_again(entry.precision) + " builds it anew");
    };
    const int32_t count = engine.getNbIOTensors();
    if (count != int32_t(inputs_.size() + outputs_.size()))
      wrong(std::to_string(count) + " inputs and outputs, " + kManifest + " has " +
            std::to_string(inputs_.size() + outputs_.size()));
    for (const std::vector<Port> *ports : {&inputs_, &outputs_}) {
      const bool input = ports == &inputs_;
      for (const Port &port : *ports) {
        const std::string side = (input ? "input " : "output ") + port.name;
        const char *name = port.name.c_str();
        bool found = false;
        for (int32_t k = 0; k < count; ++k) found |= port.name == engine.getIOTensorName(k);
        if (!found || (engine.getTensorIOMode(name) == nvinfer1::TensorIOMode::kINPUT) != input) wrong("no " + side);
        const std::vector<int64_t> shape = shape_of(engine.getTensorShape(name));
        if (!same_dtype(engine.getTensorDataType(name), port.dtype) || shape.size() != port.shape.size() + 1 ||
            !std::equal(port.shape.begin(), port.shape.end(), shape.begin() + 1))
          wrong(side + " has another dtype or shape than " + kManifest + " says");
        if (!input) continue;
        const auto &profile = entry.profile.at(port.name);
        using Ends = nvinfer1::OptProfileSelector;
        if (shape_of(engine.getProfileShape(name, 0, Ends::kMIN)) != profile[0] ||
            shape_of(engine.getProfileShape(name, 0, Ends::kMAX)) != profile[2])
          wrong(side + " takes other batches than " + kManifest + " says");
      }
    }
  }

  void prepare() {
    Parts &p = *parts_;
#ifdef TRT_MAJOR_RTX
    // Lazily, a shape's kernels would change under way, and with them the last bits of the results.
    p.config.reset(p.engine->createRuntimeConfig());
    if (!p.config) refuse_engine("gives no runtime configuration");
    p.config->setDynamicShapesKernelSpecializationStrategy(
        nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
    p.context.reset(p.engine->createExecutionContext(p.config.get()));
#else
    p.context.reset(p.engine->createExecutionContext());
#endif
    if (!p.context) refuse_engine("gives no execution context");
    for (const Port &port : inputs_) p.inputs.emplace_back(bytes_of(port, sizes_.back()), p.stream);
    for (const Port &port : outputs_) p.outputs.emplace_back(bytes_of(port, sizes_.back()), p.stream);
    p.stream.wait();
  }

  static size_t bytes_of(const Port &port, int64_t samples) {
    int64_t bytes = samples * size_of(port.dtype);
    for (int64_t axis : port.shape) bytes *= axis;
    return size_t(bytes);
  }

  // Samples first ... first + count - 1, as the smallest batch that is run and holds them; what lies beyond them in its
  // memory is of no consequence.
  void enqueue(const awase_tensor *inputs, const awase_tensor *outputs, int64_t first, int64_t count) const {
    const Parts &p = *parts_;
    const int64_t size = *std::lower_bound(sizes_.begin(), sizes_.end(), count);
    const auto place = [&](const awase_tensor &t, const Port &port) {
      return static_cast<char *>(t.data) + bytes_of(port, first);
    };
    // The caller's memory on the GPU, where TensorRT may use it (it wants 256 bytes of alignment); or NULL.
    const auto direct = [&](const awase_tensor &t, const Port &port) -> char * {
      char *data = place(t, port);
      return t.device != AWASE_CPU && count == size && reinterpret_cast<uintptr_t>(data) % 256 == 0 ? data : nullptr;
    };
    bool taken = true;
    for (size_t k = 0; k < inputs_.size(); ++k) {
      const Port &port = inputs_[k];
      char *data = direct(inputs[k], port);
      if (!data) {
        data = p.inputs[k].data();
        p.stream.copy(data, place(inputs[k], port), bytes_of(port, count),
                      inputs[k].device == AWASE_CPU ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice);
      }
      taken &= p.context->setInputShape(port.name.c_str(), dims_of(size, port));
      taken &= p.context->setTensorAddress(port.name.c_str(), data);
    }
    for (size_t k = 0; k < outputs_.size(); ++k) {
      char *data = direct(outputs[k], outputs_[k]);
      taken &= p.context->setTensorAddress(outputs_[k].name.c_str(), data ? data : p.outputs[k].data());
    }
    if (!taken) refuse_engine("does not take a batch of " + std::to_string(size));
    if (!p.context->enqueueV3(p.stream.handle())) refuse_engine("failed to run");
    for (size_t k = 0; k < outputs_.size(); ++k)
      if (!direct(outputs[k], outputs_[k]))
        p.stream.copy(place(outputs[k], outputs_[k]), p.outputs[k].data(), bytes_of(outputs_[k], count),
                      outputs[k].device == AWASE_CPU ? cudaMemcpyDeviceToHost : cudaMemcpyDeviceToDevice);
  }

  const std::string path_;
  const std::vector<Port> inputs_, outputs_;
  const int32_t gpu_;
  std::vector<int64_t> sizes_;  // batches that are run, rising
  mutable std::mutex mutex_;    // one run at a time: a context has one set of shapes and addresses
  std::unique_ptr<Parts> parts_;
};

}  // namespace

std::unique_ptr<Model> open_engine(const Bundle &bundle, const Graph &graph, const Variant &variant, int32_t gpu,
                                   const char *library) {
  std::string reasons;
  for (const Engine &engine : bundle.manifest.engines) {
    if (engine.graph != graph.name || engine.precision != variant.precision) continue;
    try {
      return std::make_unique<TensorRtModel>(bundle, graph, variant, engine, gpu, library);
    } catch (const Error &error) {
      if (error.status != AWASE_UNAVAILABLE) throw;
      reasons += (reasons.empty() ? "" : "; ") + std::string(error.what());
    }
  }
  if (reasons.empty())
    reasons = bundle.folder + ": no engine of graph " + graph.name + " in " + variant.precision + "; " +
              export_again(variant.precision) + " builds one";
  throw Error(AWASE_UNAVAILABLE, reasons);
}

}  // namespace awase::engine
