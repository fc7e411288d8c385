// SSIM of a piece of two images (Wang et al., "Image quality assessment: from error visibility to structural
// similarity", 2004), as four filtered planes instead of five.
//
// With S = a + b, D = a - b, window means m and variances v:
//   2 ma mb = (mS^2 - mD^2) / 2       ma^2 + mb^2 = (mS^2 + mD^2) / 2
//   2 cov   = (vS - vD) / 2           va + vb     = (vS + vD) / 2
// so  SSIM = (tS - mD^2) (u - vD) / ((tS + mD^2) (u + vD)),  tS = mS^2 + 2 C1,  u = vS + 2 C2,
// which is exactly 1 where a = b. Rows of S and D wait in a ring until a block of kRows rows of results can be made:
// the vertical pass filters S, D, S^2, D^2 into a block buffer, the horizontal pass ends in the scores. Where channels
// lie side by side in memory, a row holds them all and only the horizontal taps know: they are `step` elements apart.
#include "cpu/ssim_filter.h"
#include "cpu/ssim_rows.h"

namespace awase::cpu::AWASE_ISA {
namespace {

#if defined(__FMA__) || defined(__aarch64__)
constexpr double kEps = 0x1p-24;
#else
constexpr double kEps = 0x1p-23;  // products are rounded before they are added
#endif

// Sum of every step-th of the first `width` columns, in several chains of additions.
template <class Number>
double total(const Number *columns, int width, int step) {
  constexpr int kChains = 8;
  double sum[kChains] = {};
  int c = 0;
  for (; c + (kChains - 1) * step < width; c += kChains * step)
    for (int k = 0; k < kChains; ++k) sum[k] += double(columns[c + k * step]);
  for (; c < width; c += step) sum[0] += double(columns[c]);
  for (int k = 1; k < kChains; ++k) sum[0] += sum[k];
  return sum[0];
}

template <class R, class Window>
struct Kernel {
  static constexpr int kLanes = lanes<R>;
  static constexpr int kRing = kRows + Window::reach;

  const SsimPiece piece, &next_piece;  // a copy: no store through a pointer can change it
  const int height, width;    // of the scores, in elements
  const int padded;           // elements of a row that are read, in whole vectors
  const int64_t pitch;        // from row to row of scratch memory
  const Window window;
  const Vec<R> c1, c2;        // twice C1 and C2, the latter for the window's biased variance
  R *ring, *block, *errors, *partial;
  Centre<R> centre;
  double *sums;

  static int64_t pitch_of(const SsimPiece &p) { return (p.width + kLanes - 1) / kLanes * kLanes + 2 * kLanes; }
  static size_t scratch(const SsimPiece &p) {
    return pitch_of(p) * (sizeof(R) * (2 * kRing + 4 * kRows + 4) + sizeof(double));
  }

  Kernel(const SsimPiece &p, const SsimPiece &next, void *memory)
      : piece(p),
        next_piece(next),
        height(p.height - Window::reach),
        width(p.width - Window::reach * p.step),
        padded((p.width + kLanes - 1) / kLanes * kLanes),
        pitch(pitch_of(p)),
        c1(splat(R(2 * 0.01 * 0.01 * p.data_range * p.data_range))),
        c2(splat(R(2 * 0.03 * 0.03 * p.data_range * p.data_range / Window::unbias()))) {
    sums = static_cast<double *>(memory);
    ring = reinterpret_cast<R *>(sums + pitch);
    block = ring + 2 * kRing * pitch;
    errors = block + 4 * kRows * pitch;
    partial = errors + pitch;
    centre = {partial + pitch, partial + 2 * pitch};
    memset(sums, 0, pitch * sizeof(double));
    memset(errors, 0, pitch * sizeof(R));
    for (int k = 0; k < 4 * kRows; ++k)  // read by the last columns' taps, to no effect
      memset(block + k * pitch + padded, 0, 2 * kLanes * sizeof(R));
  }

  // S, D, S^2, D^2 of columns c .. c + lanes, filtered down the rows
  AWASE_INLINE void vertical(const R *const *rows, int c) const {
#pragma GCC unroll 2
    for (int k = 0; k < 2; ++k) {
      Vec<R> v[kRing];
#pragma GCC unroll 18
      for (int j = 0; j < kRing; ++j) v[j] = load(rows[j] + k * pitch + c);
      window.vertical(v, block + k * pitch + c, 4 * pitch);
#pragma GCC unroll 18
      for (int j = 0; j < kRing; ++j) v[j] *= v[j];
      window.vertical(v, block + (k + 2) * pitch + c, 4 * pitch);
    }
  }

  // Four filtered planes, half way through the horizontal pass.
  struct Parts {
    typename Window::Part plane[4];
  };
  template <int kStep>
  AWASE_INLINE Parts begin(const R *row, int64_t step) const {
    return {{window.template begin<kStep>(row, step), window.template begin<kStep>(row + pitch, step),
             window.template begin<kStep>(row + 2 * pitch, step), window.template begin<kStep>(row + 3 * pitch, step)}};
  }

  // Scores of columns c .. c + lanes, and with `estimate` their rounding errors:
  //   2 eps |lum| (u E[D^2] + vD E[S^2]) / (u + vD)^2
  // is what a relative error of eps in E[S^2] and E[D^2] does to the score.
  template <int kStep, bool estimate>
  AWASE_INLINE Vec<R> score(const Parts &here, const Parts &next, int c) const {
    Vec<R> filtered[4];
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k)
      filtered[k] = window.mean(window.template finish<kStep>(here.plane[k], next.plane[k]));
    const Vec<R> mS = filtered[0], mD = filtered[1], eS = filtered[2], eD = filtered[3];
    const Vec<R> vD = fnma(mD, mD, eD), u = fnma(mS, mS, eS) + c2;
    const Vec<R> s = mS + load(centre.sum + c), d = mD + load(centre.difference + c), d2 = d * d, tS = fma(s, s, c1);
    const Vec<R> contrast = u + vD, divisor = (tS + d2) * contrast;
    const Vec<R> result = ((tS - d2) * (u - vD)) / divisor;
    if (estimate) {
      const Vec<R> lum = (tS - d2) / (tS + d2);
      const Vec<R> error = lum * fma(u, eD, vD * eS) / (contrast * contrast);
      store(errors + c, load(errors + c) + (error < 0 ? -error : error));
    }
    return fma(divisor, Vec<R>{}, result);  // an overflow must not look like a score of 0
  }

  // Scores of a row of the block. The block's first row also gives the estimate of the error. Meanwhile row `ahead`,
  // which the next block or the next piece will need, is fetched.
  template <int kStep, bool first>
  AWASE_INLINE void horizontal(const R *row, int y, int ahead) const {
    const Ahead row_ahead = ahead < piece.height ? Ahead(piece, ahead) : Ahead(next_piece, ahead - piece.height);
    const int64_t step = kStep ? kStep : piece.step;
    const int end = width + (Window::template kPhased<kStep> ? kStep : 0);
    Parts here = begin<kStep>(row, step);
    for (int c = 0; c < width; c += kLanes) {
      if ((c & row_ahead.line) == 0) row_ahead.fetch(c);
      Parts next = here;
      if (c + kLanes < end) next = begin<kStep>(row + c + kLanes, step);
      const Vec<R> one = score<kStep, first && sizeof(R) == sizeof(float)>(here, next, c);
      put(c, y, one);
      store(partial + c, first ? one : load(partial + c) + one);
      here = next;
    }
  }

  AWASE_INLINE void put(int c, int row, Vec<R> scores) const {
    if (sizeof(R) == sizeof(float) || !piece.map) return;
    float *out = piece.map + row * piece.map_down;
    for (int k = 0; k < kLanes && c + k < width; ++k)
      out[(c + k) % piece.step * piece.map_channel + (c + k) / piece.step * piece.map_across] = float(scores[k]);
  }

  template <int kStep>
  AWASE_INLINE void run() const {
    piece.bytes ? find_centre<R, uint8_t>(piece, padded, centre) : find_centre<R, float>(piece, padded, centre);
    prefetch_grid(next_piece);
    int loaded = 0, blocks = 0;
    for (int first = 0; first < height; first += kRows, ++blocks) {
      for (; loaded < piece.height && loaded < first + kRing; ++loaded) {
        R *row = ring + 2 * pitch * (loaded % kRing);
        piece.bytes ? load_row<R, uint8_t>(piece, loaded, centre, padded, row, row + pitch)
                    : load_row<R, float>(piece, loaded, centre, padded, row, row + pitch);
      }
      const R *rows[kRing];
      for (int j = 0; j < kRing; ++j) {
        const int row = first + j < piece.height ? first + j : piece.height - 1;
        rows[j] = ring + 2 * pitch * (row % kRing);
      }
      const int count = height - first < kRows ? height - first : kRows;
      for (int c = 0; c < padded; c += kLanes) vertical(rows, c);
      horizontal<kStep, true>(block, first, loaded);
      for (int r = 1; r < count; ++r) horizontal<kStep, false>(block + 4 * r * pitch, first + r, loaded + r);
      for (int c = 0; c < width; ++c) sums[c] += double(partial[c]);
    }
    const double eps = kEps / (piece.bytes && !piece.gaussian ? 2 : 1);  // window sums of bytes are exact
    const double share = 2 * eps / (double(blocks) * (width / piece.step));
    for (int k = 0; k < piece.step; ++k) {
      piece.sums[k] = total(sums + k, width - k, piece.step);
      if (sizeof(R) == sizeof(float)) piece.errors[k] = share * total(errors + k, width - k, piece.step);
    }
  }
};

template <class R, class Window>
void run(const SsimPiece &piece, const SsimPiece &next, void *scratch) {
  const Kernel<R, Window> kernel(piece, next, scratch);
  if constexpr (sizeof(R) == sizeof(double))
    kernel.template run<0>();
  else if (piece.step == 1)
    kernel.template run<1>();
  else if (piece.step == 3)
    kernel.template run<3>();
  else
    kernel.template run<0>();
}

}  // namespace

size_t ssim_scratch(const SsimPiece &piece) {
  return Kernel<double, Gaussian<double>>::scratch(piece);  // the largest
}

void ssim_piece(const SsimPiece &piece, const SsimPiece &next, void *scratch) {
  if (piece.exact)
    piece.gaussian ? run<double, Gaussian<double>>(piece, next, scratch)
                   : run<double, Uniform<double>>(piece, next, scratch);
  else
    piece.gaussian ? run<float, Gaussian<float>>(piece, next, scratch)
                   : run<float, Uniform<float>>(piece, next, scratch);
}

}  // namespace awase::cpu::AWASE_ISA
