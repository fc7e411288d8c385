// What the CPU's Gram kernels are given, and which there are.
#pragma once

#include <stdint.h>

namespace awase::cpu {

struct Matrices {  // a batch of them
  float *data;
  int64_t matrix, row, column;  // strides
};

struct GramCall {
  Matrices f, g, out;  // [N, C, K], backward: [N, C, C], the result
  int64_t channels, length;
  float scale;     // 1 / (C K)
  int64_t block;   // rows and columns of a block of dots: a multiple of kGramBlock
  int64_t first;   // index of the image that is first in `scratch`
  float *scratch;  // aligned to 64 bytes
};

constexpr int64_t kGramBlock = 12;  // a whole number of tiles, whatever the instruction set

// One instruction set's kernels. Each does units begin .. end, counted through all images.
struct GramKernels {
  int64_t panel, strip;  // columns of a panel, rows of a strip

  // Forward, from rows whose values lie side by side. Unit: a block of the upper triangle.
  void (*dots)(const GramCall &call, int64_t begin, int64_t end);

  // Forward, from any. Unit: a panel of channels; scratch: [image][panel][K][panel's channels].
  void (*pack)(const GramCall &call, int64_t begin, int64_t end);
  void (*panels)(const GramCall &call, int64_t begin, int64_t end);

  // Backward. Unit: a strip of rows of g + g^T; scratch: [image][strip][C][strip's rows].
  void (*symmetrize)(const GramCall &call, int64_t begin, int64_t end);
  // Unit: a panel of columns of the result, from that scratch. `panel`: aligned, [C][panel's columns].
  void (*product)(const GramCall &call, float *panel, int64_t begin, int64_t end);
};

}  // namespace awase::cpu
