#include "engine/onnxruntime.h"

#include <algorithm>
#include <dlfcn.h>
#include <mutex>

// The library is not linked: its functions come from the table that OrtGetApiBase of an opened one gives.
#define ORT_API_MANUAL_INIT
#include <onnxruntime_cxx_api.h>

#include "engine/library.h"
#include "src/check.h"
#include "src/error.h"

namespace awase::engine {
namespace {

// Of ONNX Runtime 1.17; later libraries serve it too.
constexpr uint32_t kApiVersion = 17;
static_assert(ORT_API_VERSION >= kApiVersion, "the engine needs the headers of ONNX Runtime 1.17 or newer");

// ---- the library ----

struct Library {
  void *handle;
  Ort::Env env{nullptr};
};

// A process uses one ONNX Runtime, and keeps it: threads of it may live until the process ends.
Library &library(const char *asked) {
  static const LibrarySearch search{"ONNX Runtime", "onnxruntime", "AWASE_ONNXRUNTIME",
                                    {"libonnxruntime.so.1", "libonnxruntime.so"}, "onnxruntime", "onnxruntime/capi"};
  static std::mutex mutex;
  static Library *opened = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (opened) {
    same_library(search, asked, opened->handle);
    return *opened;
  }
  void *handle = open_library(search, asked);
  try {
    using Base = const OrtApiBase *(*)();
    const auto base = reinterpret_cast<Base>(dlsym(handle, "OrtGetApiBase"));
    if (!base) throw Error(AWASE_UNAVAILABLE, "the library opened for ONNX Runtime is none: it has no OrtGetApiBase");
    const OrtApi *api = base()->GetApi(kApiVersion);
    if (!api)
      throw Error(AWASE_UNAVAILABLE, std::string("ONNX Runtime ") + base()->GetVersionString() +
                                         " is too old, expected 1.17 or newer");
    Ort::InitApi(api);
    // It must not print: what goes wrong comes back as a status.
    opened = new Library{handle, Ort::Env(ORT_LOGGING_LEVEL_FATAL, "awase")};
  } catch (...) {
    dlclose(handle);
    throw;
  }
  return *opened;
}

// ---- its words for ours ----

ONNXTensorElementDataType onnx_dtype(int32_t dtype) {
  switch (dtype) {
    case AWASE_UINT8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;
    case AWASE_FLOAT16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16;
    case AWASE_FLOAT32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    case AWASE_INT64: return ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
    default: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
  }
}

// The graph's own inputs (or outputs) are the manifest's.
void compare(const std::string &what, const Ort::Session &session, bool inputs, const std::vector<Port> &ports) {
  const std::string side = inputs ? "input" : "output";
  const size_t count = inputs ? session.GetInputCount() : session.GetOutputCount();
  const auto wrong = [&](const std::string &message) {
    throw Error(AWASE_INVALID, what + ": " + message + "; export the bundle again");
  };
  if (count != ports.size())
    wrong(std::to_string(count) + " " + side + "s, " + kManifest + " has " + std::to_string(ports.size()));
  Ort::AllocatorWithDefaultOptions allocator;
  for (const Port &port : ports) {
    size_t k = 0;
    for (; k < count; ++k) {
      const auto name =
          inputs ? session.GetInputNameAllocated(k, allocator) : session.GetOutputNameAllocated(k, allocator);
      if (port.name == name.get()) break;
    }
    if (k == count) wrong("no " + side + " " + port.name);
    const Ort::TypeInfo type = inputs ? session.GetInputTypeInfo(k) : session.GetOutputTypeInfo(k);
    if (type.GetONNXType() != ONNX_TYPE_TENSOR) wrong(side + " " + port.name + " is no tensor");
    const auto info = type.GetTensorTypeAndShapeInfo();
    const std::vector<int64_t> shape = info.GetShape();  // -1: any
    if (shape.size() != port.shape.size() + 1 || info.GetElementType() != onnx_dtype(port.dtype) ||
        !std::equal(port.shape.begin(), port.shape.end(), shape.begin() + 1))
      wrong(side + " " + port.name + " has another dtype or shape than " + kManifest + " says");
    if (shape[0] >= 0) wrong(side + " " + port.name + " has a fixed batch of " + std::to_string(shape[0]));
  }
}

void use_cuda(Ort::SessionOptions &options, int32_t number) {
  const OrtApi &api = Ort::GetApi();
  OrtCUDAProviderOptionsV2 *cuda = nullptr;
  Ort::ThrowOnError(api.CreateCUDAProviderOptions(&cuda));
  const std::unique_ptr<OrtCUDAProviderOptionsV2, decltype(api.ReleaseCUDAProviderOptions)> owner(
      cuda, api.ReleaseCUDAProviderOptions);
  // TF32 would cost three digits of the parity that the bundle promises.
  const std::string device = std::to_string(number);
  const char *keys[] = {"device_id", "use_tf32"}, *values[] = {device.c_str(), "0"};
  Ort::ThrowOnError(api.UpdateCUDAProviderOptions(cuda, keys, values, 2));
  // An error where the provider or the GPU is missing. (Single operators may still be placed on the CPU, as those on
  // shapes are meant to be; that loses nothing.)
  options.AppendExecutionProvider_CUDA_V2(*cuda);
}

}  // namespace

// ---- the graph ----

struct OnnxRuntimeModel::Parts {
  std::string what;
  std::vector<std::string> names;           // inputs, then outputs: in the manifest's order
  std::vector<const char *> ins, outs;      // the same
  Ort::Session session{nullptr};
  Ort::MemoryInfo host{nullptr}, card{nullptr};

  Ort::Value value(const awase_tensor &t) const {
    const OrtMemoryInfo *memory = t.device == AWASE_CPU ? host : card;
    return Ort::Value::CreateTensor(memory, t.data, size_t(elements(t) * size_of(t.dtype)), t.shape, size_t(t.rank),
                                    onnx_dtype(t.dtype));
  }
};

OnnxRuntimeModel::OnnxRuntimeModel(const std::string &onnx, const std::string &what, const Graph &graph, int32_t device,
                                   int threads, const char *asked) {
  Library &opened = library(asked);
  const bool cuda = device != AWASE_CPU;
  try {
    parts_ = std::make_unique<Parts>();
    parts_->what = what;
    Ort::SessionOptions options;
    options.SetLogSeverityLevel(ORT_LOGGING_LEVEL_FATAL);
    if (threads) options.SetIntraOpNumThreads(threads);
    if (cuda) use_cuda(options, device);
    parts_->session = Ort::Session(opened.env, onnx.data(), onnx.size(), options);
    parts_->host = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    if (cuda) parts_->card = Ort::MemoryInfo("Cuda", OrtDeviceAllocator, device, OrtMemTypeDefault);
    compare(what, parts_->session, true, graph.inputs);
    compare(what, parts_->session, false, graph.outputs);
  } catch (const Ort::Exception &error) {
    throw Error(cuda ? AWASE_UNAVAILABLE : AWASE_INVALID,
                what + ": ONNX Runtime cannot open it" + (cuda ? " on CUDA: " : ": ") + one_line(error.what()));
  }
  for (const Port &port : graph.inputs) parts_->names.push_back(port.name);
  for (const Port &port : graph.outputs) parts_->names.push_back(port.name);
  for (size_t k = 0; k < parts_->names.size(); ++k)
    (k < graph.inputs.size() ? parts_->ins : parts_->outs).push_back(parts_->names[k].c_str());
}

OnnxRuntimeModel::~OnnxRuntimeModel() = default;

void OnnxRuntimeModel::run(const awase_tensor *inputs, const awase_tensor *outputs) const {
  const Parts &parts = *parts_;
  try {
    std::vector<Ort::Value> ins, outs;
    ins.reserve(parts.ins.size()), outs.reserve(parts.outs.size());
    for (size_t k = 0; k < parts.ins.size(); ++k) ins.push_back(parts.value(inputs[k]));
    for (size_t k = 0; k < parts.outs.size(); ++k) outs.push_back(parts.value(outputs[k]));
    // Given outputs are written in place; values of one call's own need no lock, as an IoBinding would.
    parts_->session.Run(Ort::RunOptions{nullptr}, parts.ins.data(), ins.data(), ins.size(), parts.outs.data(),
                        outs.data(), outs.size());
  } catch (const Ort::Exception &error) {
    throw Error(AWASE_INVALID, parts.what + ": ONNX Runtime cannot run it: " + one_line(error.what()));
  }
}

}  // namespace awase::engine
