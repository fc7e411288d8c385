// The CPU's operations in a library that holds CUDA's alone, emulated (the target awase_emulated, for tests).
#include "src/error.h"
#include "src/operations.h"

namespace awase::cpu {
namespace {

[[noreturn]] void none() { throw Error(AWASE_UNAVAILABLE, "CPU: this build has the emulated CUDA kernels alone"); }

}  // namespace

void ssim(const awase_tensor &, const awase_tensor &, awase_window, double, const awase_tensor *, const awase_tensor *,
          const awase_tensor *) {
  none();
}
void ssim_pairs(const awase_tensor &, const awase_tensor &, const int64_t *, const int64_t *, int64_t, awase_window,
                double, const awase_tensor &) {
  none();
}
void gram(const awase_tensor &, const awase_tensor &) { none(); }
void gram_backward(const awase_tensor &, const awase_tensor &, const awase_tensor &) { none(); }
void blend(const awase_tensor &, const awase_tensor &, const awase_tensor &, const Parts &, const awase_tensor &) {
  none();
}
void noise(uint64_t, uint64_t, const awase_tensor &) { none(); }
void pack(const awase_tensor &, const awase_tensor &) { none(); }
void unpack(const awase_tensor &, const awase_tensor &) { none(); }

}  // namespace awase::cpu
