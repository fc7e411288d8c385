// What runs a graph, and where.
#pragma once

#include <memory>
#include <string>

#include "engine/bundle.h"

namespace awase::engine {

struct Device {
  bool tensorrt = false;       // a bundle's engine runs it; or ONNX Runtime
  int32_t number = AWASE_CPU;  // or a CUDA device's
};

// "cpu", "cuda", "cuda:N", "tensorrt" or "tensorrt:N" (NULL: cpu). Throws awase::Error.
Device read_device(const char *text);

// A graph opened. Thread-safe.
class Model {
 public:
  virtual ~Model() = default;

  // Tensors as awase_session_run takes them, checked.
  virtual void run(const awase_tensor *inputs, const awase_tensor *outputs) const = 0;
};

// Throws awase::Error where the device is not there or the graph is not what the manifest says.
std::unique_ptr<Model> open_model(const Bundle &bundle, const Graph &graph, Device device,
                                  const awase_session_options &options);

}  // namespace awase::engine
