// Noise on the CPU: blocks of four numbers, shared among threads.
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "src/operations.h"

namespace awase::cpu {

AWASE_EACH_ISA(void noise(uint64_t seed, uint64_t first, float *out, int64_t dim, int64_t row_stride, int64_t stride,
                          int64_t begin, int64_t end);)

namespace {

struct Call {
  uint64_t seed, first;
  const awase_tensor &out;
};

void piece(void *context, int64_t begin, int64_t end) {
  const Call &call = *static_cast<Call *>(context);
  const awase_tensor &out = call.out;
  AWASE_DISPATCH(noise, call.seed, call.first, static_cast<float *>(out.data), out.shape[1], out.strides[0],
                 out.strides[1], begin, end);
}

// About 30 microseconds of work: less is not worth waking a thread.
constexpr int64_t kGrain = 4096;

}  // namespace

void noise(uint64_t seed, uint64_t first, const awase_tensor &out) {
  if (out.shape[0] == 0 || out.shape[1] == 0) return;
  Call call{seed, first, out};
  parallel(out.shape[0] * ((out.shape[1] + 3) / 4), kGrain, piece, &call);
}

}  // namespace awase::cpu
