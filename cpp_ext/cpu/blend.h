// What the CPU's blending kernels are given.
#pragma once

#include <stdint.h>

namespace awase::cpu {

struct BlendView {
  float *data;
  int64_t n, c, h, w;  // strides
};

struct BlendCall {
  BlendView za, zb, out;  // za.n = zb.n = 0: one pair under all weights
  int64_t count, channels, height, width;
  const float *weights;
  int64_t weights_l, weights_p;  // strides
  const int64_t *ends;           // of the parts
  bool whole;                    // in all three, the values of an item lie side by side, in the same order
  bool stream;                   // where `whole`, write past the caches
};

}  // namespace awase::cpu
