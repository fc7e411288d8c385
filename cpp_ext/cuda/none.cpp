// CUDA's operations where this library was built without nvcc.
#include "src/error.h"
#include "src/operations.h"

namespace awase::cuda {
namespace {

[[noreturn]] void none() {
  throw Error(AWASE_UNAVAILABLE, "CUDA: this build has no CUDA kernels (no nvcc where it was built)");
}

}  // namespace

int devices() { none(); }
int device_of(const void *) { none(); }
void ssim(const awase_tensor &, const awase_tensor &, awase_window, double, const awase_tensor *, const awase_tensor *,
          const awase_tensor *, void *) {
  none();
}
void ssim_pairs(const awase_tensor &, const awase_tensor &, const int64_t *, const int64_t *, int64_t, awase_window,
                double, const awase_tensor &, void *) {
  none();
}
void gram(const awase_tensor &, const awase_tensor &, void *) { none(); }
void gram_backward(const awase_tensor &, const awase_tensor &, const awase_tensor &, void *) { none(); }
void blend(const awase_tensor &, const awase_tensor &, const awase_tensor &, const Parts &, const awase_tensor &,
           void *) {
  none();
}
void noise(uint64_t, uint64_t, const awase_tensor &, void *) { none(); }
void pack(const awase_tensor &, const awase_tensor &, void *) { none(); }
void unpack(const awase_tensor &, const awase_tensor &, void *) { none(); }

}  // namespace awase::cuda
