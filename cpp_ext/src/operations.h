// The operations behind the C interface, once for CPUs and once for CUDA. Their arguments have been checked: dtypes,
// ranks, shapes, devices and indices are right, no output overlaps an input except where awase.h allows it.
// Empty tensors can arrive. Anything that still fails is thrown as awase::Error or std::bad_alloc.
#pragma once

#include <cstdint>

#include "awase/awase.h"

namespace awase {

// Parts of a latent: part p is the channels ends[p - 1] .. ends[p].
struct Parts {
  int64_t count;
  const int64_t *ends;  // [count], host: one past each part's last channel
};

namespace cpu {
void ssim(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range,
          const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map);
void ssim_pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count,
                awase_window window, double data_range, const awase_tensor &scores);
void gram(const awase_tensor &f, const awase_tensor &out);
void gram_backward(const awase_tensor &f, const awase_tensor &g, const awase_tensor &out);
void blend(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights, const Parts &parts,
           const awase_tensor &out);
void noise(uint64_t seed, uint64_t first, const awase_tensor &out);
void pack(const awase_tensor &x, const awase_tensor &out);
void unpack(const awase_tensor &u, const awase_tensor &out);
}  // namespace cpu

namespace cuda {
int devices();                       // throws AWASE_UNAVAILABLE where there are none
int device_of(const void *pointer);  // the number of the device whose memory this is, -1 if it is none's
void ssim(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range,
          const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map, void *stream);
void ssim_pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count,
                awase_window window, double data_range, const awase_tensor &scores, void *stream);
void gram(const awase_tensor &f, const awase_tensor &out, void *stream);
void gram_backward(const awase_tensor &f, const awase_tensor &g, const awase_tensor &out, void *stream);
void blend(const awase_tensor &za, const awase_tensor &zb, const awase_tensor &weights, const Parts &parts,
           const awase_tensor &out, void *stream);
void noise(uint64_t seed, uint64_t first, const awase_tensor &out, void *stream);
void pack(const awase_tensor &x, const awase_tensor &out, void *stream);
void unpack(const awase_tensor &u, const awase_tensor &out, void *stream);
}  // namespace cuda

}  // namespace awase
