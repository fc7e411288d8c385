// The two windows of SSIM as separable filters over rows of floats: for files compiled for each instruction set.
//
// Taps are symmetric, so opposite rows (and columns) are added before they are weighted: 5 additions and 6 products
// instead of 11 products, the smallest first, for the least rounding. The vertical pass holds all rows that kRows
// results need in registers.
#pragma once

#include "cpu/simd.h"

namespace awase::cpu::AWASE_ISA {
namespace {

// Rows of results made at once: as many as the registers hold the rows for.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRows = 8;
#else
constexpr int kRows = 4;
#endif

// 11 taps, sigma 1.5 (Wang et al. 2004), normalised.
template <class R>
struct Gaussian {
  static constexpr int reach = 10;
  Vec<R> weight[6];

  Gaussian() {
    // exp(-(k - 5)^2 / (2 sigma^2)) over their sum
    constexpr double exact[6] = {0.00102838008447911, 0.007598758135239185, 0.03600077212843083,
                                 0.10936068950970002, 0.2130055377112537, 0.26601172486179436};
    // What rounding takes from the sum goes to the smallest weight, which is the finest.
    R rounded[6];
    double rest = 1;
    for (int k = 5; k > 0; --k) {
      rounded[k] = R(exact[k]);
      rest -= k < 5 ? 2 * double(rounded[k]) : double(rounded[k]);
    }
    rounded[0] = R(rest / 2);
    for (int k = 0; k < 6; ++k) weight[k] = splat(rounded[k]);
  }

  static double unbias() { return 1; }
  AWASE_INLINE Vec<R> mean(Vec<R> filtered) const { return filtered; }

  // out[r][0 .. lanes) of kRows rows, `pitch` apart, from rows v[0 .. kRows + reach)
  AWASE_INLINE void vertical(const Vec<R> *v, R *out, int64_t pitch) const {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Vec<R> sum = weight[0] * (v[r] + v[r + 10]);
#pragma GCC unroll 4
      for (int k = 1; k < 5; ++k) sum = fma(weight[k], v[r + k] + v[r + 10 - k], sum);
      store(out + r * pitch, fma(weight[5], v[r + 5], sum));
    }
  }

  // The horizontal pass at p is finish(begin(p), begin(p + lanes)). Where kPhased, begin() leaves the even taps and the
  // odd taps apart, the latter where the even ones lie, and finish() moves them by one pixel: half as many vectors are
  // read across cache lines. Otherwise finish() needs the first of its arguments alone.
  struct Part {
    Vec<R> even, odd;
  };
  template <int kStep>
#if defined(__AVX2__) || defined(__aarch64__)
  static constexpr bool kPhased = kStep > 0 && sizeof(R) == sizeof(float);
#else
  static constexpr bool kPhased = false;
#endif

  template <int kStep>
  AWASE_INLINE Part begin(const R *p, int64_t step) const {
    if constexpr (kPhased<kStep>) {
      const Vec<R> v0 = load(p), v2 = tap<2 * kStep>(p), v4 = tap<4 * kStep>(p), v6 = tap<6 * kStep>(p),
                   v8 = tap<8 * kStep>(p), v10 = tap<10 * kStep>(p);
      return {fma(weight[4], v4 + v6, fma(weight[2], v2 + v8, weight[0] * (v0 + v10))),
              fma(weight[5], v4, fma(weight[3], v2 + v6, weight[1] * (v0 + v8)))};
    } else {
      Vec<R> sum = weight[0] * (load(p) + load(p + 10 * step));
#pragma GCC unroll 4
      for (int k = 1; k < 5; ++k) sum = fma(weight[k], load(p + k * step) + load(p + (10 - k) * step), sum);
      sum = fma(weight[5], load(p + 5 * step), sum);
      return {sum, sum};
    }
  }

  template <int kStep>
  AWASE_INLINE Vec<R> finish(const Part &here, const Part &next) const {
    if constexpr (kPhased<kStep>)
      return here.even + shift<kStep>(here.odd, next.odd);
    else
      return here.even;
  }

 private:
  // Read where it lies, or shifted out of two aligned vectors where that is cheaper (measured): a mixture that keeps
  // the load and the shuffle units equally busy.
  template <int offset>
  AWASE_INLINE static Vec<R> tap(const R *p) {
    constexpr int n = lanes<float>, skip = offset % n;
#if defined(__AVX512F__)
    constexpr bool shifted = skip != 2 && skip != 14;
#elif defined(__AVX2__)
    constexpr bool shifted = skip == 4;
#else
    constexpr bool shifted = false;
#endif
    if constexpr (shifted)
      return shift<skip>(load(p + offset - skip), load(p + offset - skip + n));
    else
      return load(p + offset);
  }
};

// 7 equal taps; the passes leave sums (exact for uint8: 49 * 510^2 < 2^24), mean() divides them by 49.
template <class R>
struct Uniform {
  static constexpr int reach = 6;
  Vec<R> part = splat(R(1.0 / 49));

  static double unbias() { return 49.0 / 48; }
  AWASE_INLINE Vec<R> mean(Vec<R> filtered) const { return filtered * part; }

  // Four windows share rows 3 to 6, and in twos rows 1, 2 and 7, 8.
  AWASE_INLINE void vertical(const Vec<R> *v, R *out, int64_t pitch) const {
#pragma GCC unroll 2
    for (int r = 0; r < kRows; r += 4, v += 4, out += 4 * pitch) {
      const Vec<R> middle = (v[3] + v[4]) + (v[5] + v[6]), above = v[1] + v[2], below = v[7] + v[8];
      store(out, middle + (v[0] + above));
      store(out + pitch, middle + (above + v[7]));
      store(out + 2 * pitch, middle + (v[2] + below));
      store(out + 3 * pitch, middle + (below + v[9]));
    }
  }

  struct Part {
    Vec<R> sum;
  };
  template <int kStep>
  static constexpr bool kPhased = false;
  template <int kStep>
  AWASE_INLINE Part begin(const R *p, int64_t step) const {
    return {((load(p) + load(p + step)) + (load(p + 2 * step) + load(p + 3 * step))) +
            ((load(p + 4 * step) + load(p + 5 * step)) + load(p + 6 * step))};
  }
  template <int kStep>
  AWASE_INLINE Vec<R> finish(const Part &here, const Part &) const {
    return here.sum;
  }
};

}  // namespace
}  // namespace awase::cpu::AWASE_ISA
