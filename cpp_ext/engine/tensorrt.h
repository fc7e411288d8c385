// A graph run by TensorRT, from an engine that the bundle holds.
#pragma once

#include <memory>

#include "engine/model.h"

namespace awase::engine {

// The first of the bundle's engines of a graph that may run on the GPU of this number. `library`: TensorRT's, or NULL
// to look for it. Throws awase::Error, which says of each engine why not; without TensorRT's headers there was nothing to
// build this with, and that is what it says.
std::unique_ptr<Model> open_engine(const Bundle &bundle, const Graph &graph, const Variant &variant, int32_t gpu,
                                   const char *library);

}  // namespace awase::engine
