// In place of tensorrt.cpp where TensorRT's headers or CUDA's were not there to build it.
#include "engine/tensorrt.h"
#include "src/error.h"

namespace awase::engine {

std::unique_ptr<Model> open_engine(const Bundle &, const Graph &, const Variant &, int32_t, const char *) {
  throw Error(AWASE_UNAVAILABLE,
              "device tensorrt: this awase was built without TensorRT; build it with CMake's -DAWASE_TENSORRT=on "
              "-DTENSORRT_ROOT=... (TensorRT's or TensorRT-RTX's SDK) and the CUDA toolkit, or use cpu or cuda");
}

}  // namespace awase::engine
