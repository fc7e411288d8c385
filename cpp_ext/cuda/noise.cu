// Standard normal noise: a thread for each four numbers of a sample, with the transform of src/normal.h.
#include "cuda/launch.h"
#include "src/normal.h"

namespace awase::cuda {
namespace {

struct Noise {
  static constexpr int kThreads = 256, kBlocks = 1;
  struct Shared {};
  struct Registers {};

  uint64_t seed, first;
  float *out;
  int64_t count, size, row, column;  // samples, numbers in each; strides
  bool vectors;

  AWASE_BODY int64_t each() const { return divide_up(size, 4); }
  AWASE_BODY int phases(int64_t) const { return 1; }
  AWASE_BODY void phase(int, int64_t block, int thread, Shared &, Registers &) const {
    const int64_t index = block * kThreads + thread;
    if (index >= count * each()) return;
    const int64_t sample = index / each(), four = index % each();
    double n0, n1, n2, n3;
    normal::normal4<normal::Scalar>(seed, first + uint64_t(sample), uint64_t(four), n0, n1, n2, n3);
    float *to = out + sample * row + 4 * four * column;
    const int64_t rest = size - 4 * four;
    if (vectors && rest >= 4) {
      *reinterpret_cast<float4 *>(to) = float4{float(n0), float(n1), float(n2), float(n3)};
      return;
    }
    to[0] = float(n0);
    if (rest > 1) to[column] = float(n1);
    if (rest > 2) to[2 * column] = float(n2);
    if (rest > 3) to[3 * column] = float(n3);
  }
};

}  // namespace

void noise(uint64_t seed, uint64_t first, const awase_tensor &out, void *stream) {
  if (!out.shape[0] || !out.shape[1]) return;
  const Stream current(out.device, stream);
  Noise noise = {};
  noise.seed = seed, noise.first = first;
  noise.out = static_cast<float *>(out.data);
  noise.count = out.shape[0], noise.size = out.shape[1];
  noise.row = out.strides[0], noise.column = out.strides[1];
  noise.vectors = noise.column == 1 && (noise.count == 1 || noise.row % 4 == 0) && aligned(out.data, 16);
  launch(noise, divide_up(noise.count * noise.each(), Noise::kThreads), Noise::kThreads, current);
}

}  // namespace awase::cuda
