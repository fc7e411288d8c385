// From sums over parts of planes to the scores of images, and the list of planes to score again.
#pragma once

#include "cuda/ssim_parts.cuh"

namespace awase::cuda {

AWASE_BODY int64_t append(int64_t *counter) {
#if defined(__CUDA_ARCH__)
  return int64_t(atomicAdd(reinterpret_cast<unsigned long long *>(counter), 1ull));
#else
  return (*counter)++;
#endif
}

// A block for each image: its channels' values and their mean from the partial sums. The first time it lists the
// planes to score again; the second time, images without such planes are left alone.
struct Total {
  static constexpr int kThreads = 64, kBlocks = 1;
  struct Shared {
    Partial lane[kThreads];
  };
  struct Registers {
    double sum;
  };

  Tiling tiling;
  bool second;
  int threads;
  double limit;  // of the sum of a plane's estimates
  const Partial *partials, *exact;
  int64_t *again;
  uint8_t *flags;  // [planes]
  double *scores, *channels;  // or null
  int64_t scores_n, channels_n, channels_c;

  AWASE_BODY int phases(int64_t image) const {
    bool any = !second;
    for (int c = 0; c < tiling.channels && !any; ++c) any = flags[image * tiling.channels + c];
    return any ? 2 * tiling.channels : 0;
  }

  AWASE_BODY void phase(int p, int64_t image, int thread, Shared &shared, Registers &mine) const {
    const int c = p / 2, parts = tiling.parts();
    const int64_t plane = image * tiling.channels + c;
    Partial sum{0, 0};
    if (p % 2 == 0) {
      const Partial *from = (second && flags[plane] ? exact : partials) + plane * parts;
      for (int k = thread; k < parts; k += threads) {
        sum.loss += from[k].loss;
        sum.error += from[k].error;
      }
      shared.lane[thread] = sum;
    } else if (thread == 0) {
      for (int k = 0; k < least(parts, threads); ++k) {
        sum.loss += shared.lane[k].loss;
        sum.error += shared.lane[k].error;
      }
      if (!second) {
        const bool wanted = !(sum.error <= limit) || !(sum.loss - sum.loss == 0);  // not-a-number too
        flags[plane] = wanted;
        if (wanted) again[1 + append(again)] = plane;
      }
      const double score = 1 - 2 * sum.loss / (double(tiling.rows) * tiling.columns);
      mine.sum = c == 0 ? score : mine.sum + score;
      if (channels) channels[image * channels_n + c * channels_c] = score;
      if (scores && c + 1 == tiling.channels) scores[image * scores_n] = mine.sum / tiling.channels;
    }
  }
};

}  // namespace awase::cuda
