// SSIM on a GPU: the kernel that scores planes (a channel of a pair of images each) of any size.
//
// Four planes are filtered, not five: with X = k x - x0, Y = k y - y0 (k a power of two near 1 / data_range, x0 and y0
// samples of the plane's brightness), S = X + Y, D = X - Y and m, v the windowed mean and variance,
//   1 - SSIM = 2 (p vD + t u) / ((p + t) (u + vD)),   p = (mS + s0)^2 + 2 C1,  t = (mD + d0)^2,  u = vS + 2 C2
// which is exactly 0 for identical images and does not cancel close to it.
//
// A block takes a tile of columns and a band of rows, of one wide plane or of several narrow ones side by side (in
// "slots"). Each thread walks down a column and filters it in registers (transposed form: an input is added to all sums
// under way, a_k = a_(k+1) + w_k x, which needs no moves). After every kRows rows the four planes go to shared memory,
// and each thread filters a row horizontally at kRows neighbouring places, reading each value once. Per pixel of a 256
// x 256 image these are about 124 floating-point operations of 150 instructions, and 52 bytes of shared memory; memory
// bandwidth is no limit.
//
// Rounding: a plain sum of weights times values rounds the same way at every pixel of a flat region, and the mean of
// squares minus the square of the mean makes that an error of up to 1e-5 in scores of pictures with large flat regions.
// So differences are filtered: with d_i = x_i - x_(i-1) and W_m = w_m + … + w_n,
//   sum over k = 0 … n of w_k x_(i+k) = x_i + sum over m = 1 … n of W_m d_(i+m)
// which takes hardly more operations and is exact where the image is flat. What is left of rounding differs from pixel
// to pixel and all but vanishes in the mean. The kernel still estimates its size,
//   2 eps |l| (u E[D^2] + vD E[S^2]) / (u + vD)^2,   l = (p - t) / (p + t),   eps = 2^-24
// without the terms of what is exactly flat, at every kRows-th place; planes whose mean estimate is above a limit (it
// is mostly 2 to 20 times the error) are scored again in binary64 by the same template.
#pragma once

#include "cuda/ssim_parts.cuh"

namespace awase::cuda {

// What a thread adds up, with Kahan's compensation.
template <class Real>
struct Sum {
  Real total, lost;
  AWASE_BODY void add(Real x) {
    const Real y = x - lost, t = total + y;
    lost = (t - total) - y;
    total = t;
  }
};

// In: uint8_t, Half or float. Real: float, or double for the planes listed in `again`.
template <class In, class Real, class Window>
struct Ssim {
  static constexpr bool kAgain = sizeof(Real) == 8;
  static constexpr int kThreads = 256, kBlocks = kAgain ? 1 : 2;
  static constexpr int kTaps = Window::kTaps, kRows = kAgain ? 4 : 8;
  // Rows of shared memory: a thread reads up to kTaps - 1 past its slot. Odd, so that threads on neighbouring rows
  // use different banks.
  static constexpr int kPitch = (kThreads + kTaps - 1) | 1;
  static constexpr int kLanes = 8;                     // threads that add up a slot; slots are at least as wide
  static constexpr int kSampleThreads = 4, kSamples = 4;

  struct alignas(16) Four {
    Real s, d, ss, dd;
  };
  struct Shared {
    union {
      Four rows[kRows][kPitch];
      struct {
        Real x[kThreads], y[kThreads];
      } sample;
      struct {
        Partial of[kThreads], lane[kThreads];
      } sum;
    };
  };
  struct Registers {
    int64_t plane, part;
    int slot, place;            // the slot, and the place in it
    int first_row, rows;        // of the map, in this band
    int first_column, columns;  // of the map, in this tile
    bool there;                 // has a column
    const In *x_at, *y_at;      // where the column goes on
    In x_next[kRows / 2], y_next[kRows / 2];  // loaded ahead
    Real x_offset, y_offset;
    Real sums[4][kTaps - 1];
    Sum<Real> loss;
    Real error;
  };

  Tiling tiling;
  Images a, b;
  const Pair *pairs;   // images that are compared; null: a[m] and b[m]
  Real scale, c1, c2;  // k, and 2 C1 and 2 C2 in its units
  Partial *partials;   // [planes, parts]; again: of the loss alone
  int64_t *again;      // how many planes are listed behind it: set to 0 here, filled by Total
  float *map;          // or null
  int64_t map_n, map_c, map_h, map_w;
  int64_t grid;        // again: blocks; each takes every grid-th group of planes

  AWASE_BODY int64_t planes() const { return kAgain ? again[0] : tiling.planes; }
  AWASE_BODY int steps() const { return int(divide_up(tiling.band_rows, kRows)); }
  AWASE_BODY int phases_each() const { return 5 + 2 * steps(); }
  AWASE_BODY int64_t items() const { return divide_up(planes(), tiling.slots) * tiling.parts(); }

  AWASE_BODY int phases(int64_t block) const {
    if (!kAgain) return phases_each();
    const int64_t count = items();
    return block < count ? int(divide_up(count - block, grid)) * phases_each() : 0;
  }

  AWASE_BODY void phase(int p, int64_t block, int thread, Shared &shared, Registers &mine) const {
    int64_t item = block;
    if (kAgain) {
      item += p / phases_each() * grid;
      p %= phases_each();
    }
    const int last = 2 + 2 * steps();
    if (p == 0) {
      place(item, thread, mine);
      sample(thread, shared, mine);
    } else if (p == 1) {
      centre(thread, shared, mine);
      warm_up(mine);
    } else if (p < last) {
      const int row = (p - 2) / 2 * kRows;
      if (p % 2 == 0)
        down(row, thread, shared, mine);
      else
        across(row, shared, mine);
    } else if (p == last) {
      shared.sum.of[thread] = Partial{double(mine.loss.total), double(mine.error)};
    } else if (p == last + 1) {
      add_up(thread, shared, mine);
    } else {
      finish(thread, shared, mine);
    }
  }

  // Which column, and which row and group of places of the map, are this thread's.
  AWASE_BODY void place(int64_t item, int thread, Registers &mine) const {
    mine.slot = thread / tiling.slot_width;
    mine.place = thread % tiling.slot_width;
    mine.part = item % tiling.parts();
    const int64_t index = item / tiling.parts() * tiling.slots + mine.slot;
    const bool used = mine.slot < tiling.slots && index < planes();
    mine.plane = !used ? -1 : kAgain ? again[1 + index] : index;
    const int tile = int(mine.part % tiling.tiles), band = int(mine.part / tiling.tiles);
    mine.first_row = band * tiling.band_rows;
    mine.rows = least(tiling.band_rows, tiling.rows - mine.first_row);
    mine.first_column = tile * tiling.tile_columns;
    mine.columns = used ? least(tiling.tile_columns, tiling.columns - mine.first_column) : 0;
    mine.there = used && mine.place < mine.columns + kTaps - 1;
    const int64_t image = used ? mine.plane / tiling.channels : 0, channel = used ? mine.plane % tiling.channels : 0;
    const int64_t i = used && pairs ? pairs[image].i : image, j = used && pairs ? pairs[image].j : image;
    const int64_t column = mine.there ? mine.first_column + mine.place : 0;
    mine.x_at = static_cast<const In *>(a.data) + (i * a.n + channel * a.c + mine.first_row * a.h + column * a.w);
    mine.y_at = static_cast<const In *>(b.data) + (j * b.n + channel * b.c + mine.first_row * b.h + column * b.w);
    mine.loss = Sum<Real>{0, 0};
    mine.error = 0;
  }

  // Four threads of a slot look at four pixels each, spread over the tile. What is not finite counts as 0.
  AWASE_BODY void sample(int thread, Shared &shared, Registers &mine) const {
    if (mine.place >= kSampleThreads || !mine.there) return;
    const int height = mine.rows + kTaps - 1, width = mine.columns + kTaps - 1;
    const int64_t aside = (2 * mine.place + 1) * width / (2 * kSampleThreads) - mine.place;
    Real x = 0, y = 0;
    AWASE_UNROLL
    for (int k = 0; k < kSamples; ++k) {
      const int64_t below = (2 * k + 1) * height / (2 * kSamples);
      const Real p = Pixel<In>::value(mine.x_at[below * a.h + aside * a.w]);
      const Real q = Pixel<In>::value(mine.y_at[below * b.h + aside * b.w]);
      x += p - p == 0 ? p : 0;
      y += q - q == 0 ? q : 0;
    }
    shared.sample.x[thread] = x;
    shared.sample.y[thread] = y;
  }

  AWASE_BODY void centre(int thread, const Shared &shared, Registers &mine) const {
    if (mine.plane < 0) return;
    Real x = 0, y = 0;
    AWASE_UNROLL
    for (int k = 0; k < kSampleThreads; ++k) {
      x += shared.sample.x[thread - mine.place + k];
      y += shared.sample.y[thread - mine.place + k];
    }
    const Real step = Pixel<In>::step(scale), factor = scale / (kSampleThreads * kSamples) / step;
    mine.x_offset = rint(x * factor) * step + Pixel<In>::bias(scale);
    mine.y_offset = rint(y * factor) * step + Pixel<In>::bias(scale);
  }

  // The first rows of the band, which complete no window; then half of the next rows are loaded ahead.
  AWASE_BODY void warm_up(Registers &mine) const {
    AWASE_UNROLL
    for (int plane = 0; plane < 4; ++plane)
      AWASE_UNROLL
      for (int k = 0; k < kTaps - 1; ++k) mine.sums[plane][k] = 0;
    if (!mine.there) return;
    AWASE_UNROLL
    for (int row = 0; row < kTaps - 1; ++row) {
      push(*mine.x_at, *mine.y_at, mine);
      mine.x_at += a.h;
      mine.y_at += b.h;
    }
    load(0, mine.x_next, mine.y_next, mine);
  }

  // Half of the rows of a step, the first of which is `row` of the band's part of the map.
  AWASE_BODY void load(int row, In (&x)[kRows / 2], In (&y)[kRows / 2], Registers &mine) const {
    AWASE_UNROLL
    for (int r = 0; r < kRows / 2; ++r) {
      const bool inside = row + r < mine.rows;
      x[r] = inside ? *mine.x_at : In{};
      y[r] = inside ? *mine.y_at : In{};
      mine.x_at += a.h;
      mine.y_at += b.h;
    }
  }

  // One pixel more for the column; returns the four filtered values that it completes.
  AWASE_BODY Four push(In x, In y, Registers &mine) const {
    const Real p = Pixel<In>::centred(x, scale, mine.x_offset), q = Pixel<In>::centred(y, scale, mine.y_offset);
    const Real s = p + q, d = p - q;
    return Four{filter(s, mine.sums[0]), filter(d, mine.sums[1]), filter(s * s, mine.sums[2]),
                filter(d * d, mine.sums[3])};
  }

  // x's step from the value before it is added to all sums under way; the last place holds that value.
  AWASE_BODY static Real filter(Real x, Real (&sums)[kTaps - 1]) {
    const Real before = sums[kTaps - 2], step = x - before;
    const Real done = multiply_add(Real(Window::above(kTaps - 1)), step, sums[0]);
    AWASE_UNROLL
    for (int k = 0; k < kTaps - 3; ++k)
      sums[k] = multiply_add(Real(Window::above(kTaps - 2 - k)), step, sums[k + 1]);
    sums[kTaps - 3] = multiply_add(Real(Window::above(1)), step, before);
    sums[kTaps - 2] = x;
    return done;
  }

  AWASE_BODY void down(int row, int thread, Shared &shared, Registers &mine) const {
    if (!mine.there) return;
    In x[kRows / 2], y[kRows / 2];
    load(row + kRows / 2, x, y, mine);
    AWASE_UNROLL
    for (int r = 0; r < kRows / 2; ++r) shared.rows[r][thread] = push(mine.x_next[r], mine.y_next[r], mine);
    AWASE_UNROLL
    for (int r = 0; r < kRows / 2; ++r) shared.rows[r + kRows / 2][thread] = push(x[r], y[r], mine);
  }

  AWASE_BODY void across(int row, const Shared &shared, Registers &mine) const {
    if (mine.there) load(row + kRows, mine.x_next, mine.y_next, mine);
    const int r = mine.place % kRows, first = mine.place / kRows * kRows;
    if (row + r >= mine.rows || first >= mine.columns) return;
    const Four *from = &shared.rows[r][mine.slot * tiling.slot_width + first];
    Four out[kRows], before = from[0];
    AWASE_UNROLL
    for (int k = 1; k < kRows + kTaps - 1; ++k) {
      const Four in = from[k];
      const Four step{in.s - before.s, in.d - before.d, in.ss - before.ss, in.dd - before.dd};
      AWASE_UNROLL
      for (int j = 0; j < kRows; ++j) {
        const int m = k - j;
        if (m < 1 || m >= kTaps) continue;
        const Real w = Real(Window::above(m));
        out[j].s = multiply_add(w, step.s, m == 1 ? before.s : out[j].s);
        out[j].d = multiply_add(w, step.d, m == 1 ? before.d : out[j].d);
        out[j].ss = multiply_add(w, step.ss, m == 1 ? before.ss : out[j].ss);
        out[j].dd = multiply_add(w, step.dd, m == 1 ? before.dd : out[j].dd);
      }
      before = in;
    }
    const Real bias = Pixel<In>::bias(scale);
    const Real x0 = mine.x_offset - bias, y0 = mine.y_offset - bias;
    const Real s0 = x0 + y0, d0 = x0 - y0;
    Real loss[kRows];  // half of 1 - SSIM
    AWASE_UNROLL
    for (int j = 0; j < kRows; ++j) {
      const Real ms = out[j].s + s0, md = out[j].d + d0;
      const Real u = Window::unbiased(out[j].ss - out[j].s * out[j].s) + c2;
      const Real v = Window::unbiased(out[j].dd - out[j].d * out[j].d);
      const Real p = multiply_add(ms, ms, c1), t = md * md;
      const Real light = p + t, spread = u + v, inverse = reciprocal(light * spread);
      loss[j] = multiply_add(p, v, t * u) * inverse;
      if (j == 0 && !kAgain) {
        const Real quotient = inverse * light;  // 1 / (u + v)
        const Real d_error = v == 0 ? 0 : u * out[j].dd, s_error = u == c2 ? 0 : v * out[j].ss;
        mine.error += (d_error + s_error) * (quotient * quotient) * fabs((p - t) * (inverse * spread));
      }
    }
    const int valid = mine.columns - first;
    if (map) {
      float *to = map + mine.plane / tiling.channels * map_n + mine.plane % tiling.channels * map_c +
                  (mine.first_row + row + r) * map_h + (mine.first_column + first) * map_w;
      AWASE_UNROLL
      for (int j = 0; j < kRows; ++j)
        if (j < valid) to[j * map_w] = float(multiply_add(Real(-2), loss[j], Real(1)));
    }
    AWASE_UNROLL
    for (int j = 1; j < kRows; ++j) loss[j] = j < valid ? loss[j] : 0;
    AWASE_UNROLL
    for (int half = kRows / 2; half > 0; half /= 2)
      AWASE_UNROLL
      for (int j = 0; j < half; ++j) loss[j] += loss[j + half];
    mine.loss.add(loss[0]);
  }

  // Sums of a slot: by a few threads, then by one.
  AWASE_BODY void add_up(int thread, Shared &shared, const Registers &mine) const {
    if (mine.plane < 0 || mine.place >= kLanes) return;
    Partial sum{0, 0};
    for (int k = 0; k < tiling.slot_width; k += kLanes) {
      sum.loss += shared.sum.of[thread + k].loss;
      sum.error += shared.sum.of[thread + k].error;
    }
    shared.sum.lane[thread] = sum;
  }

  AWASE_BODY void finish(int thread, const Shared &shared, const Registers &mine) const {
    if (mine.plane < 0 || mine.place != 0) return;
    Partial sum{0, 0};
    AWASE_UNROLL
    for (int k = 0; k < kLanes; ++k) {
      sum.loss += shared.sum.lane[thread + k].loss;
      sum.error += shared.sum.lane[thread + k].error;
    }
    partials[mine.plane * tiling.parts() + mine.part] = sum;
    if (!kAgain && mine.plane == 0 && mine.part == 0) again[0] = 0;
  }
};

}  // namespace awase::cuda
