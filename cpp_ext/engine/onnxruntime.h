// ONNX Runtime: its shared library, opened when the program runs, and a graph run by it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/manifest.h"

namespace awase::engine {

struct Device {
  int32_t number = AWASE_CPU;  // or a CUDA device's
};

// "cpu", "cuda" or "cuda:N" (NULL: cpu). Throws awase::Error.
Device read_device(const char *text);

// A graph opened. Thread-safe.
class OnnxRuntimeGraph {
 public:
  // `onnx`: the file's bytes; `what` names it in messages; `library`: ONNX Runtime's, or NULL to look for it. Throws
  // awase::Error where it cannot be opened or its inputs and outputs are not those that the manifest gives.
  OnnxRuntimeGraph(const std::string &onnx, const std::string &what, const Graph &graph, Device device, int threads,
                   const char *library);
  ~OnnxRuntimeGraph();

  // Tensors as awase_session_run takes them, checked.
  void run(const awase_tensor *inputs, const awase_tensor *outputs) const;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace awase::engine
