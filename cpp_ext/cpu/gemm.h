// The inner kernel of matrix products: a tile of kTileRows x kTileColumns in registers, as a sum of outer products.
//
// Both factors are read from panels that hold, for each k, the tile's rows or columns side by side (Goto and van de
// Geijn, "Anatomy of high-performance matrix multiplication", 2008).
#pragma once

#include "cpu/simd.h"

namespace awase::cpu::AWASE_ISA {
namespace {

// Enough sums to keep two multiply-add units of latency 4 busy, and few enough for the registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 8, kTileVectors = 2;
#elif defined(__AVX2__)
constexpr int kTileRows = 4, kTileVectors = 3;
#elif defined(__ARM_NEON)
constexpr int kTileRows = 8, kTileVectors = 2;
#else
constexpr int kTileRows = 4, kTileVectors = 2;
#endif
constexpr int kTileColumns = kTileVectors * lanes<float>;
static_assert(kTileColumns % kTileRows == 0, "the rows of a tile can be part of a panel of columns");

template <int kVectors>
struct Tile {
  Vec<float> sum[kTileRows][kVectors];
};

// tile = sum over k of a[k row_step + row] b[k kTileColumns + column]
template <int kVectors>
AWASE_INLINE void multiply(Tile<kVectors> &tile, const float *a, int64_t row_step, const float *b, int64_t count) {
  Vec<float> sum[kTileRows][kVectors] = {};
  for (int64_t k = 0; k < count; ++k, a += row_step, b += kTileColumns) {
    Vec<float> column[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) column[v] = load(b + v * lanes<float>);
#pragma GCC unroll 8
    for (int row = 0; row < kTileRows; ++row) {
      const Vec<float> factor = splat(a[row]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) sum[row][v] = fma(factor, column[v], sum[row][v]);
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kTileRows; ++row)
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) tile.sum[row][v] = sum[row][v];
}

}  // namespace
}  // namespace awase::cpu::AWASE_ISA
