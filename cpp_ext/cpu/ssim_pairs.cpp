// SSIM of pairs whose images' own means and variances are at hand: only the mean of the product is left to filter.
// Both images are less a constant each, so that the covariance E[x y] - E[x] E[y] loses few digits. Operations mirror
// each other for x and y: a pair of equal images comes to exactly 1.
#include "cpu/ssim_filter.h"
#include "cpu/ssim_kernels.h"

namespace awase::cpu::AWASE_ISA {
namespace {

constexpr int kLanes = lanes<float>;
using Floats = Vec<float>;

AWASE_INLINE int padded(const PairStrip &strip) { return (strip.width + kLanes - 1) / kLanes * kLanes; }

template <class Window>
struct Filter {
  static constexpr int kRing = kRows + Window::reach;
  const PairStrip strip;  // a copy: no store through a pointer can change it
  const Window window;
  float *block;  // [kRows][pitch], zeros behind the padded columns

  Filter(const PairStrip &strip, void *scratch) : strip(strip), block(static_cast<float *>(scratch)) {
    for (int r = 0; r < kRows; ++r)
      memset(block + r * strip.pitch + padded(strip), 0, (strip.pitch - padded(strip)) * sizeof(float));
  }

  // block = window means down the columns of value(row, c), for the kRows rows of results from `first`
  template <class Value>
  AWASE_INLINE void vertical(int first, Value value) const {
    int64_t rows[kRing];
    for (int j = 0; j < kRing; ++j) rows[j] = (first + j < strip.height ? first + j : strip.height - 1) * strip.pitch;
    for (int c = 0; c < padded(strip); c += kLanes) {
      Floats v[kRing];
#pragma GCC unroll 18
      for (int j = 0; j < kRing; ++j) v[j] = value(rows[j] + c);
      window.vertical(v, block + c, strip.pitch);
    }
  }

  // put(c, window means of columns c .. c + lanes) along a row of the block
  template <class Put>
  AWASE_INLINE void horizontal(const float *row, Put put) const {
    const int width = strip.width - Window::reach, end = width + (Window::template kPhased<1> ? 1 : 0);
    typename Window::Part here = window.template begin<1>(row, 1);
    for (int c = 0; c < width; c += kLanes) {
      typename Window::Part next = here;
      if (c + kLanes < end) next = window.template begin<1>(row + c + kLanes, 1);
      put(c, window.mean(window.template finish<1>(here, next)));
      here = next;
    }
  }
};

// The centre is the median of a grid of pixels: large areas of one colour, where rounding errors do not average out, are
// then often near 0.
template <class T>
float centre_pixels(const PairStrip &strip, const Pixels &pixels, const Pixels &next, float *image) {
  constexpr int kGrid = 4;
  const T *data = static_cast<const T *>(pixels.data);
  T sorted[kGrid * kGrid];
  int count = 0;
  for (int y = 0; y < kGrid; ++y)
    for (int x = 0; x < kGrid; ++x) {
      const int64_t row = int64_t(2 * y + 1) * strip.height / (2 * kGrid);
      const int64_t column = int64_t(2 * x + 1) * strip.width / (2 * kGrid);
      const T value = data[row * pixels.down + column * pixels.across];
      int k = count++;
      for (; k > 0 && value < sorted[k - 1]; --k) sorted[k] = sorted[k - 1];
      sorted[k] = value;
    }
  const float centre = float(sorted[count / 2]);
  for (int row = 0; row < strip.height; ++row) {
    const T *in = data + row * pixels.down;
    const T *ahead = static_cast<const T *>(next.data) + row * next.down;
    for (int k = 0; k < strip.width; k += 16) __builtin_prefetch(ahead + k * next.across);
    float *out = image + row * strip.pitch;
    int c = 0;
    if (pixels.across == 1)
      for (; c + kLanes <= strip.width; c += kLanes) store(out + c, load_floats(in + c) - splat(centre));
    else if (pixels.across == 3)  // a loop of its own, which compilers vectorise
      for (; c < strip.width; ++c) out[c] = float(in[3 * c]) - centre;
    for (; c < strip.width; ++c) out[c] = float(in[c * pixels.across]) - centre;
    for (; c < strip.pitch; ++c) out[c] = 0;
  }
  return centre;
}

template <class Window>
void moments(const PairStrip &strip, float *image, void *scratch) {
  const Filter<Window> filter(strip, scratch);
  const int height = strip.height - Window::reach;
  float *means = image + strip.height * strip.pitch, *variances = means + height * strip.pitch;
  for (int first = 0; first < height; first += kRows) {
    const int count = height - first < kRows ? height - first : kRows;
    filter.vertical(first, [&](int64_t at) { return load(image + at); });
    for (int r = 0; r < count; ++r) {
      float *mean = means + (first + r) * strip.pitch;
      filter.horizontal(filter.block + r * strip.pitch, [&](int c, Floats m) { store(mean + c, m); });
    }
    filter.vertical(first, [&](int64_t at) {
      const Floats x = load(image + at);
      return x * x;
    });
    for (int r = 0; r < count; ++r) {
      const float *mean = means + (first + r) * strip.pitch;
      float *variance = variances + (first + r) * strip.pitch;
      filter.horizontal(filter.block + r * strip.pitch, [&](int c, Floats square) {
        const Floats m = load(mean + c);
        store(variance + c, fnma(m, m, square));
      });
    }
  }
}

template <class Window>
void score(const PairStrip &given, const float *x, const float *y, const float *following, double *sums,
           void *scratch) {
  const PairStrip strip = given;
  const Filter<Window> filter(strip, scratch);
  const int height = strip.height - Window::reach, width = strip.width - Window::reach;
  const int64_t means = strip.height * strip.pitch, variances = height * strip.pitch;
  const Floats centre_x = splat(x[means + 2 * variances]), centre_y = splat(y[means + 2 * variances]);
  const Floats c1 = splat(float(0.01 * 0.01 * strip.data_range * strip.data_range));
  const Floats c2 = splat(float(0.03 * 0.03 * strip.data_range * strip.data_range / Window::unbias()));
  float *partial = filter.block + kRows * strip.pitch, *errors = partial + strip.pitch;
  memset(partial, 0, 2 * strip.pitch * sizeof(float));
  for (int row = 0; row < height; row += kRows) {
    filter.vertical(row, [&](int64_t at) { return load(x + at) * load(y + at); });
    for (int r = 0; r < kRows && row + r < height; ++r) {
      const int64_t at = means + (row + r) * strip.pitch;
      filter.horizontal(filter.block + r * strip.pitch, [&](int c, Floats product) {
        __builtin_prefetch(following + (row + r) * strip.pitch + c);
        __builtin_prefetch(following + at + c);
        __builtin_prefetch(following + at + variances + c);
        const Floats mx = load(x + at + c), my = load(y + at + c);
        const Floats covariance = fnma(mx, my, product);
        const Floats spread = load(x + at + variances + c) + load(y + at + variances + c);
        const Floats fx = mx + centre_x, fy = my + centre_y, both = fx * fy;
        const Floats squares = fx * fx + fy * fy + c1, contrast = spread + c2, divisor = squares * contrast;
        const Floats one = ((both + both + c1) * (covariance + covariance + c2)) / divisor;
        store(partial + c, load(partial + c) + fma(divisor, Floats{}, one));
        // A relative error of eps in E[x^2], E[y^2], E[x y] changes the score by up to
        //   2 eps |lum| (E[x^2] + E[y^2]) / (vx + vy + C2).
        // Next to each other such errors are alike where the images are flat, and cancel where they are not.
        if (r == 0) {
          const Floats flat = c2 / (c2 + splat(100.0f) * spread) + splat(0.2f);
          const Floats error = flat * (both + both + c1) * (spread + mx * mx + my * my) / divisor;
          store(errors + c, load(errors + c) + (error < 0 ? -error : error));
        }
      });
    }
    sums[2] += width;
  }
  for (int c = width; c < padded(strip); ++c) partial[c] = errors[c] = 0;
  Vec<double> total = {}, error = {};
  for (int c = 0; c < padded(strip); c += lanes<double>) {
    total += load_doubles(partial + c);
    error += load_doubles(errors + c);
  }
  const double eps = strip.bytes && !strip.gaussian ? 0x1p-26 : 0x1p-24;  // window sums of whole numbers are exact
  for (int k = 0; k < lanes<double>; ++k) {
    sums[0] += total[k];
    sums[1] += 2 * eps * error[k];
  }
}

}  // namespace

size_t pair_scratch(const PairStrip &strip) { return (kRows + 2) * strip.pitch * sizeof(float); }

void prepare_strip(const PairStrip &strip, const Pixels &pixels, const Pixels &next, float *image, void *scratch) {
  float &centre = image[strip.floats() - strip.pitch];
  centre = strip.bytes ? centre_pixels<uint8_t>(strip, pixels, next, image)
                       : centre_pixels<float>(strip, pixels, next, image);
  strip.gaussian ? moments<Gaussian<float>>(strip, image, scratch) : moments<Uniform<float>>(strip, image, scratch);
}

void score_strip(const PairStrip &strip, const float *x, const float *y, const float *next, double *sums,
                 void *scratch) {
  strip.gaussian ? score<Gaussian<float>>(strip, x, y, next, sums, scratch)
                 : score<Uniform<float>>(strip, x, y, next, sums, scratch);
}

}  // namespace awase::cpu::AWASE_ISA
