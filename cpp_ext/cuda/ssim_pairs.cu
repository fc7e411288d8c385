// SSIM of chosen pairs of images: the kernel of ssim.cuh with indices.
//
// Caching each image's mean and variance, as on a CPU, does not pay on a GPU: a pair would then read 16 bytes of cached
// moments for each pixel besides the two images, 24 in all, which at 3 TB/s takes longer (8 ps) than to filter four
// planes in registers (about 5 ps on the same GPU); and few images' moments would fit in its cache. So moments are
// computed anew where they are used, and never leave the registers.
#include <vector>

#include "cuda/ssim.h"

namespace awase::cuda {

void ssim_pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count,
                awase_window window, double data_range, const awase_tensor &scores, void *stream) {
  if (!count || !a.shape[1]) return;
  if (a.shape[0] > INT32_MAX || b.shape[0] > INT32_MAX)
    throw Error(AWASE_INVALID, "a, b: got more than 2^31 - 1 images, too many for CUDA kernels");
  std::vector<Pair> pairs(static_cast<size_t>(count));
  for (int64_t m = 0; m < count; ++m) pairs[size_t(m)] = {int32_t(i[m]), int32_t(j[m])};
  const Stream current(a.device, stream);
  const Scratch scratch(current, count * int64_t(sizeof(Pair)));
  upload(pairs.data(), count * 2, scratch.at<uint32_t>(), current);
  score(a, b, scratch.at<Pair>(), count, window, data_range, &scores, nullptr, nullptr, current);
}

}  // namespace awase::cuda
