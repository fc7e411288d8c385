// What the CPU's packing kernels are given.
#pragma once

#include <stdint.h>

namespace awase::cpu {

struct FramesView {
  int64_t n, c, h, w;  // strides
};

struct FramesCall {
  float *floats;
  uint8_t *bytes;
  FramesView x, u;  // of floats and of bytes
  int64_t channels, height, width;
  int planes;      // 1 to 4: that many planes of floats, to pixels of as many bytes; 0: whatever the strides say
  int64_t values;  // where planes is 1: values of a pixel, side by side among the floats as among the bytes
  bool alpha;      // packing only: 3 channels to pixels of 4 bytes, the last of which is 255
  bool joined;     // the rows of an image follow each other without a gap
};

}  // namespace awase::cpu
