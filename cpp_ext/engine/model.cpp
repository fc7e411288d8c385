#include "engine/model.h"

#include "engine/onnxruntime.h"
#include "engine/tensorrt.h"
#include "src/check.h"
#include "src/error.h"

namespace awase::engine {

Device read_device(const char *text) {
  const std::string device = text ? text : "cpu";
  const std::string expected = "cpu, cuda, cuda:N, tensorrt or tensorrt:N";
  if (device == "cpu") return {};
  if (device == "openvino")
    throw Error(AWASE_UNAVAILABLE, "device: got openvino, expected " + expected + "; that one is of Python's runtime "
                                   "alone");
  const std::string kind = device.substr(0, device.find(':'));
  const std::string digits = device.size() > kind.size() ? device.substr(kind.size() + 1) : "0";
  if ((kind != "cuda" && kind != "tensorrt") || digits.empty() || digits.size() > 4 ||
      digits.find_first_not_of("0123456789") != std::string::npos)
    refuse("device", device, expected);
  return {kind == "tensorrt", std::stoi(digits)};
}

std::unique_ptr<Model> open_model(const Bundle &bundle, const Graph &graph, Device device,
                                  const awase_session_options &options) {
  if (options.threads < 0 || options.threads > 1024)
    refuse("threads", std::to_string(options.threads), "0 (the engine's choice) to 1024");
  const Variant &variant = bundle.variant(graph, options.precision);
  if (device.tensorrt) return open_engine(bundle, graph, variant, device.number, options.tensorrt);
  return std::make_unique<OnnxRuntimeModel>(bundle.read(variant.file), bundle.folder + ": graph " + graph.name, graph,
                                            device.number, options.threads, options.onnxruntime);
}

}  // namespace awase::engine
