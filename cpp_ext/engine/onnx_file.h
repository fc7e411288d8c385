#pragma once

#include <string>

namespace awase::engine {

// Whether a tensor of an ONNX model is kept in another file, which ONNX Runtime would read without our knowing: the twin
// of runtime/onnx_file.py. Throws Error (AWASE_INVALID) if the bytes are no ONNX model.
bool weights_outside(const std::string &onnx);

}  // namespace awase::engine
