// What SSIM of images in order and of chosen pairs have in common.
#pragma once

#include "cuda/ssim_parts.cuh"

namespace awase::cuda {

// SSIM of `count` images: a[m] and b[m], or a[pairs[m].i] and b[pairs[m].j] with the pairs in device memory.
void score(const awase_tensor &a, const awase_tensor &b, const Pair *pairs, int64_t count, awase_window window,
           double data_range, const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map,
           const Stream &stream);

}  // namespace awase::cuda
