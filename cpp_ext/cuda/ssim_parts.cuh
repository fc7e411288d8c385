// What the kernels of SSIM work on: images, their cut into blocks, pixels and windows.
#pragma once

#include "cuda/launch.h"

namespace awase::cuda {

// [N, C, H, W], strides in elements.
struct Images {
  const void *data;
  int64_t n, c, h, w;
};

// How planes are cut; depends on nothing but the size of the images (but for `slots`, which changes no bit).
struct Tiling {
  int64_t planes;
  int channels;
  int rows, columns;               // of the map
  int bands, band_rows;            // each band has band_rows rows of the map (the last one fewer)
  int tiles, tile_columns;         // likewise
  int slots, slot_width, threads;  // planes beside each other in a block, their distance, and the threads for all
  int64_t samples;                 // error estimates per plane
  AWASE_BODY int parts() const { return bands * tiles; }
};

// Planes are channels of a[i] and b[j].
struct Pair {
  int32_t i, j;
};

struct Partial {
  double loss, error;  // sums over a part of a plane, without constant factors
};

// ---- pixels ----

template <class In>
struct Pixel {
  static AWASE_BODY float value(In x) { return to_float(x); }
  // k x - (offset - bias)
  template <class Real>
  static AWASE_BODY Real centred(In x, Real k, Real offset) {
    return multiply_add(Real(to_float(x)), k, -offset);
  }
  template <class Real>
  static AWASE_BODY Real bias(Real) {
    return 0;
  }
  // Steps in which offsets are chosen.
  template <class Real>
  static AWASE_BODY Real step(Real) {
    return Real(1) / 256;
  }
};

// A byte becomes a float by its bits, as 2^23 + byte; the 2^23 goes away with the offset. All of it is exact.
template <>
struct Pixel<uint8_t> {
  static AWASE_BODY float value(uint8_t x) { return x; }
  template <class Real>
  static AWASE_BODY Real centred(uint8_t x, Real k, Real offset) {
    return multiply_add(Real(float_of_bits(0x4B000000u | x)), k, -offset);
  }
  template <class Real>
  static AWASE_BODY Real bias(Real k) {
    return 8388608 * k;
  }
  template <class Real>
  static AWASE_BODY Real step(Real k) {
    return k;
  }
};

// ---- windows ----

// above(m) is the sum of all weights but the first m.
struct Gaussian {
  static constexpr int kTaps = 11;
  static AWASE_BODY double above(int m) {
    const double half = m == 1 || m == 10 ? 0.0010283800844791092
                        : m == 2 || m == 9 ? 0.008627138219718295
                        : m == 3 || m == 8 ? 0.04462791034814913
                        : m == 4 || m == 7 ? 0.15398859985784913
                                           : 0.3669941375691028;
    return m > 5 ? half : 1 - half;
  }
  template <class Real>
  static AWASE_BODY Real unbiased(Real variance) {
    return variance;
  }
};

struct Uniform {
  static constexpr int kTaps = 7;
  static AWASE_BODY double above(int m) { return (7 - m) / 7.0; }
  template <class Real>
  static AWASE_BODY Real unbiased(Real variance) {
    return variance * Real(49.0 / 48);  // sample covariance
  }
};

}  // namespace awase::cuda
