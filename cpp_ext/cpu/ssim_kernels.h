// What ssim_run.cpp and ssim_pairs_run.cpp hand to the kernels, and the same for every instruction set.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "awase/awase.h"
#include "cpu/isa.h"

namespace awase::cpu {

// Rectangles are cut into pieces of at most this many rows and elements of scores, whatever the threads.
constexpr int kPieceRows = 128;
constexpr int kPieceWidth = 1024;

// A piece whose estimated error in float32 is above this is computed again in float64. Estimates come to 0.05e-6 for
// noise and 0.3e-6 .. 1.2e-6 for photographs and renderings. The limits were found by trial, on those and on altered
// (posterised, negated, saturated) photographs, of which none was then off by more than 1e-6; with the uniform window
// errors came closer to their estimates.
constexpr double ssim_error_limit(bool gaussian) { return gaussian ? 1.5e-6 : 0.7e-6; }

// A rectangle of one plane of pixels, in elements. `across` is 1 where the fast loads can be used.
struct Pixels {
  const void *data;
  int64_t down, across;  // strides
};

struct SsimPiece {
  Pixels a, b;
  bool bytes;         // uint8, else float32
  bool gaussian;      // the window: Gaussian, else uniform
  bool exact;         // compute in float64
  int height, width;  // of the rectangle read, in elements: `step` interleaved channels side by side
  int step;           // from a pixel to its right neighbour: 1, or the number of interleaved channels
  double data_range;
  double *sums;    // [step] sums of the scores of each channel
  double *errors;  // [step] mean of the estimated error of float32 arithmetic; untouched where exact
  float *map;      // of this piece's scores, or NULL; exact only
  int64_t map_channel, map_down, map_across;
};

AWASE_EACH_ISA(size_t ssim_scratch(const SsimPiece &piece);
               // `next` is the piece that comes after it, fetched into the cache meanwhile, or this one again.
               void ssim_piece(const SsimPiece &piece, const SsimPiece &next, void *scratch);)

// ---- pairs ----

// Pairs are scored in strips of rows: a strip of many images stays in the cache.
constexpr int kStripRows = 24;

// A strip of one plane, the same of every image. Prepared, an image is in rows of `pitch` floats: its pixels less their
// centre [height], window means of these [height - reach], their variances [height - reach] and the centre itself [1].
struct PairStrip {
  bool bytes, gaussian;
  int height, width;  // of the pixels read
  double data_range;
  int64_t pitch;  // width rounded up to a multiple of 16, and 32 more
  int reach() const { return gaussian ? 10 : 6; }
  int64_t floats() const { return pitch * (height + 2 * (height - reach()) + 1); }
};

// The like of ssim_error_limit for pairs, which are then scored by the kernel of single images.
constexpr double kPairErrorLimit = 0.5e-6;

AWASE_EACH_ISA(size_t pair_scratch(const PairStrip &strip);
               // In both, `next` is what the next call will read, fetched into the cache meanwhile.
               void prepare_strip(const PairStrip &strip, const Pixels &pixels, const Pixels &next, float *image,
                                  void *scratch);
               // Adds the scores to sums[0], estimates of their errors to sums[1], the number of these to sums[2].
               void score_strip(const PairStrip &strip, const float *x, const float *y, const float *next,
                                double *sums, void *scratch);)

// The score of a[i] and b[j] alone.
double ssim_one(const awase_tensor &a, const awase_tensor &b, int64_t i, int64_t j, awase_window window,
                double data_range);

}  // namespace awase::cpu
