// Rows of two images as rows of their sum and difference: for files compiled for each instruction set.
//
// S = a + b - s0 and D = a - b - d0, where s0 and d0 are means over a few pixels of each channel. That keeps the
// variances' cancellation small, and makes images of one colour exact.
#pragma once

#include <math.h>

#include "cpu/simd.h"
#include "cpu/ssim_kernels.h"

namespace awase::cpu::AWASE_ISA {
namespace {

// Both centres of every column: constant where there is one channel, else repeating with the channels.
template <class R>
struct Centre {
  R *sum, *difference;  // [width + lanes]
};

template <class R, class T>
AWASE_INLINE R pixel(const Pixels &p, int64_t row, int64_t column) {
  return R(static_cast<const T *>(p.data)[row * p.down + column * p.across]);
}

constexpr int kGrid = 4;  // by 4 pixels of each channel

AWASE_INLINE int64_t grid_row(const SsimPiece &p, int y) { return int64_t(2 * y + 1) * p.height / (2 * kGrid); }
AWASE_INLINE int64_t grid_column(const SsimPiece &p, int x) {
  return int64_t(2 * x + 1) * (p.width / p.step) / (2 * kGrid) * p.step;
}

// Fetches lines of a row of both images into the cache.
struct Ahead {
  const char *a, *b;
  int64_t across_a, across_b;  // bytes
  int line;                    // a cache line's pixels, less one

  AWASE_INLINE Ahead(const SsimPiece &p, int64_t row) {
    const int size = p.bytes ? 1 : 4;
    a = static_cast<const char *>(p.a.data) + row * p.a.down * size;
    b = static_cast<const char *>(p.b.data) + row * p.b.down * size;
    across_a = p.a.across * size;
    across_b = p.b.across * size;
    line = 64 / size - 1;
  }
  AWASE_INLINE void fetch(int64_t column) const {
    __builtin_prefetch(a + column * across_a);
    __builtin_prefetch(b + column * across_b);
  }
};

AWASE_INLINE void prefetch_grid(const SsimPiece &p) {
  for (int y = 0; y < kGrid; ++y)
    for (int x = 0; x < kGrid; ++x) Ahead(p, grid_row(p, y)).fetch(grid_column(p, x));
}

template <class R, class T>
void find_centre(const SsimPiece &p, int padded, Centre<R> centre) {
  for (int channel = 0; channel < p.step; ++channel) {
    double sum = 0, difference = 0;
    for (int y = 0; y < kGrid; ++y)
      for (int x = 0; x < kGrid; ++x) {
        const int64_t row = grid_row(p, y), column = grid_column(p, x) + channel;
        const R a = pixel<R, T>(p.a, row, column), b = pixel<R, T>(p.b, row, column);
        sum += double(a + b);
        difference += double(a - b);
      }
    sum /= kGrid * kGrid;
    difference /= kGrid * kGrid;
    if (sizeof(T) == 1) {  // whole numbers: uint8 stays exact
      sum = floor(sum + 0.5);
      difference = floor(difference + 0.5);
    }
    for (int c = channel; c < padded; c += p.step) {
      centre.sum[c] = R(sum);
      centre.difference[c] = R(difference);
    }
  }
}

// Row `row` of S and D; the columns from width to padded become 0.
template <class R, class T>
void load_row(const SsimPiece &p, int row, Centre<R> centre, int padded, R *sum, R *difference) {
  int c = 0;
  if constexpr (sizeof(R) == sizeof(float)) {
    if (p.a.across == 1 && p.b.across == 1) {
      const T *a = static_cast<const T *>(p.a.data) + row * p.a.down;
      const T *b = static_cast<const T *>(p.b.data) + row * p.b.down;
      for (; c + lanes<R> <= p.width; c += lanes<R>) {
        const Vec<R> x = load_floats(a + c), y = load_floats(b + c);
        store(sum + c, x + y - load(centre.sum + c));
        store(difference + c, x - y - load(centre.difference + c));
      }
    }
  }
  for (; c < p.width; ++c) {
    const R x = pixel<R, T>(p.a, row, c), y = pixel<R, T>(p.b, row, c);
    sum[c] = x + y - centre.sum[c];
    difference[c] = x - y - centre.difference[c];
  }
  for (; c < padded; ++c) sum[c] = difference[c] = 0;
}

}  // namespace
}  // namespace awase::cpu::AWASE_ISA
