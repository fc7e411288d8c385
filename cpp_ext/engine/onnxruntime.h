// A graph run by ONNX Runtime, whose shared library is opened when the program runs.
#pragma once

#include <memory>
#include <string>

#include "engine/model.h"

namespace awase::engine {

class OnnxRuntimeModel : public Model {
 public:
  // `onnx`: the file's bytes; `what` names it in messages; `device`: AWASE_CPU or a CUDA device's number; `library`:
  // ONNX Runtime's, or NULL to look for it. Throws awase::Error where it cannot be opened or its inputs and outputs are
  // not those that the manifest gives.
  OnnxRuntimeModel(const std::string &onnx, const std::string &what, const Graph &graph, int32_t device, int threads,
                   const char *library);
  ~OnnxRuntimeModel() override;

  void run(const awase_tensor *inputs, const awase_tensor *outputs) const override;

 private:
  struct Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace awase::engine
