// Gram matrices: G = F F^T / (C K), the upper triangle only, then its mirror image.
//
// Two ways, for long and for short rows:
//   dots    tiles of dot products along the rows of F as they lie in memory, a block of K at a time so that the rows of
//           neighbouring tiles are found in the cache; each tile ends in sums across the lanes, which long rows pay for
//   panels  F^T copied to panels of a few columns, tiles as sums of outer products (gemm.h)
// Either way an element of G is summed in an order that hangs on K alone: not on the tile or thread that it falls to.
#include "cpu/gram.h"

#include "cpu/gemm.h"

namespace awase::cpu::AWASE_ISA {
namespace {

typedef float Four __attribute__((vector_size(16)));
typedef float FourAnywhere __attribute__((vector_size(16), aligned(4), may_alias));

// A square of 4 x 4 values, turned over its diagonal.
AWASE_INLINE void turn(const float *from, int64_t from_row, float *to, int64_t to_row) {
  const Four x = *reinterpret_cast<const FourAnywhere *>(from);
  const Four y = *reinterpret_cast<const FourAnywhere *>(from + from_row);
  const Four z = *reinterpret_cast<const FourAnywhere *>(from + 2 * from_row);
  const Four w = *reinterpret_cast<const FourAnywhere *>(from + 3 * from_row);
  const Four a = __builtin_shufflevector(x, y, 0, 4, 1, 5), b = __builtin_shufflevector(z, w, 0, 4, 1, 5);
  const Four c = __builtin_shufflevector(x, y, 2, 6, 3, 7), d = __builtin_shufflevector(z, w, 2, 6, 3, 7);
  *reinterpret_cast<FourAnywhere *>(to) = __builtin_shufflevector(a, b, 0, 1, 4, 5);
  *reinterpret_cast<FourAnywhere *>(to + to_row) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
  *reinterpret_cast<FourAnywhere *>(to + 2 * to_row) = __builtin_shufflevector(c, d, 0, 1, 4, 5);
  *reinterpret_cast<FourAnywhere *>(to + 3 * to_row) = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

// ---- dots ----

constexpr int64_t kDotBlock = 1024;  // of K
#if defined(__AVX512F__) || defined(__ARM_NEON)
constexpr int kDotRows = 6;  // by 4 columns: 24 sums among 32 registers
#else
constexpr int kDotRows = 3;  // 12 among 16
#endif
static_assert(kGramBlock % 4 == 0 && kGramBlock % kDotRows == 0, "blocks are made of whole tiles");

// The sums of the lanes of a, b, c and d.
AWASE_INLINE Four lane_sums(Vec<float> a, Vec<float> b, Vec<float> c, Vec<float> d) {
#if defined(__AVX512F__)
  const __m512 p = _mm512_add_ps(_mm512_maskz_unpacklo_ps(0xFFFF, a, b), _mm512_maskz_unpackhi_ps(0xFFFF, a, b));
  const __m512 q = _mm512_add_ps(_mm512_maskz_unpacklo_ps(0xFFFF, c, d), _mm512_maskz_unpackhi_ps(0xFFFF, c, d));
  const __m512 low = _mm512_maskz_shuffle_ps(0xFFFF, p, q, 0x44), high = _mm512_maskz_shuffle_ps(0xFFFF, p, q, 0xEE);
  const __m512 s = _mm512_add_ps(low, high);
  const __m256 half = _mm256_add_ps(_mm512_maskz_extractf32x8_ps(0xFF, s, 0), _mm512_maskz_extractf32x8_ps(0xFF, s, 1));
  return (Four)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(__AVX2__)
  const __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return (Four)_mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
#elif defined(__x86_64__)
  const __m128 p = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
  const __m128 q = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
  return (Four)_mm_add_ps(_mm_movelh_ps(p, q), _mm_movehl_ps(q, p));
#elif defined(__ARM_NEON)
  return (Four)vpaddq_f32(vpaddq_f32((float32x4_t)a, (float32x4_t)b), vpaddq_f32((float32x4_t)c, (float32x4_t)d));
#else
  Four s = {};
  for (int lane = 0; lane < lanes<float>; ++lane) s += Four{a[lane], b[lane], c[lane], d[lane]};
  return s;
#endif
}

// The first `count` lanes from p, zeros in the others.
AWASE_INLINE Vec<float> load_first(const float *p, int count) {
#if defined(__AVX512F__)
  return (Vec<float>)_mm512_maskz_loadu_ps(__mmask16((1u << count) - 1), p);
#elif defined(__AVX2__)
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return (Vec<float>)_mm256_maskload_ps(p, _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane));
#else
  Vec<float> v = {};
  for (int lane = 0; lane < lanes<float>; ++lane)
    if (lane < count) v[lane] = p[lane];
  return v;
#endif
}

// sums[r] = dots of row[r] with column[0 .. 4], over k = 0 .. count.
AWASE_INLINE void dot_tile(const float *const *row, const float *const *column, int64_t count, Four *sums) {
  Vec<float> sum[kDotRows][4] = {};
  int64_t k = 0;
  for (; k + lanes<float> <= count; k += lanes<float>) {
    Vec<float> x[kDotRows];
#pragma GCC unroll 8
    for (int r = 0; r < kDotRows; ++r) x[r] = load(row[r] + k);
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) {
      const Vec<float> y = load(column[c] + k);
#pragma GCC unroll 8
      for (int r = 0; r < kDotRows; ++r) sum[r][c] = fma(x[r], y, sum[r][c]);
    }
  }
  if (k < count) {
    const int left = int(count - k);
    Vec<float> x[kDotRows];
#pragma GCC unroll 8
    for (int r = 0; r < kDotRows; ++r) x[r] = load_first(row[r] + k, left);
#pragma GCC unroll 8
    for (int c = 0; c < 4; ++c) {
      const Vec<float> y = load_first(column[c] + k, left);
#pragma GCC unroll 8
      for (int r = 0; r < kDotRows; ++r) sum[r][c] = fma(x[r], y, sum[r][c]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kDotRows; ++r) sums[r] = lane_sums(sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
}

// An image's matrices and size.
struct Image {
  const float *f;
  int64_t f_row, f_column;
  float *g;
  int64_t g_row, g_column, channels, length;
};

Image image_of(const GramCall &call, int64_t n) {
  Image image = {call.f.data + n * call.f.matrix, call.f.row, call.f.column, nullptr, 0, 0, call.channels, call.length};
  image.g = call.out.data + n * call.out.matrix;
  image.g_row = call.out.row, image.g_column = call.out.column;
  return image;
}

// A sum so far, scaled once it is whole.
struct Step {
  int64_t start, count;  // of k
  bool first;
  float scale;
};

Step step_at(const GramCall &call, int64_t start, int64_t block) {
  const int64_t left = call.length - start;
  return {start, left < block ? left : block, start == 0, left <= block ? call.scale : 1};
}

// Rows i .. and columns j .. of g.
void dot_block(const Image &image, const Step &step, int64_t i, int64_t j) {
  const float *row[kDotRows], *column[4];
  const int rows = image.channels - i < kDotRows ? int(image.channels - i) : kDotRows;
  const int columns = image.channels - j < 4 ? int(image.channels - j) : 4;
  // Past the last channel: that channel again, and the sums are not kept.
  const float *from = image.f + step.start;
  for (int r = 0; r < kDotRows; ++r) row[r] = from + (i + (r < rows ? r : rows - 1)) * image.f_row;
  for (int c = 0; c < 4; ++c) column[c] = from + (j + (c < columns ? c : columns - 1)) * image.f_row;
  Four sums[kDotRows];
  dot_tile(row, column, step.count, sums);
  for (int r = 0; r < rows; ++r) {
    float *to = image.g + (i + r) * image.g_row + j * image.g_column;
    if (columns == 4 && image.g_column == 1) {
      FourAnywhere *four = reinterpret_cast<FourAnywhere *>(to);
      *four = (step.first ? sums[r] : *four + sums[r]) * step.scale;
    } else {
      for (int c = 0; c < columns; ++c) {
        float &value = to[c * image.g_column];
        value = (step.first ? sums[r][c] : value + sums[r][c]) * step.scale;
      }
    }
  }
}

// Rows j0 .. j1, columns i0 .. i1 below the diagonal, from what is on its other side.
void mirror(const Image &image, int64_t i0, int64_t i1, int64_t j0, int64_t j1) {
  const int64_t row = image.g_row, column = image.g_column;
  for (int64_t j = j0; j < j1; j += 4) {
    for (int64_t i = i0; i < i1 && i < j1; i += 4) {
      if (column == 1 && i + 4 <= j && i + 4 <= i1 && j + 4 <= j1) {
        turn(image.g + i * row + j, row, image.g + j * row + i, row);
      } else {
        for (int64_t y = j; y < j + 4 && y < j1; ++y)
          for (int64_t x = i; x < i + 4 && x < i1 && x < y; ++x)
            image.g[y * row + x * column] = image.g[x * row + y * column];
      }
    }
  }
}

// Blocks begin .. end of one image, numbered column by column: (0, 0) (0, 1) (1, 1) (0, 2) …
void dots_of_image(const GramCall &call, const Image &image, int64_t begin, int64_t end) {
  int64_t first_row = begin, first_column = 0;
  while (first_row > first_column) first_row -= ++first_column;
  const int64_t channels = image.channels;
  for (int64_t start = 0; start < image.length; start += kDotBlock) {
    const Step step = step_at(call, start, kDotBlock);
    int64_t row = first_row, column = first_column;
    for (int64_t block = begin; block < end; ++block) {
      const int64_t i0 = row * call.block, j0 = column * call.block;
      const int64_t i1 = i0 + call.block < channels ? i0 + call.block : channels;
      const int64_t j1 = j0 + call.block < channels ? j0 + call.block : channels;
      for (int64_t i = i0; i < i1; i += kDotRows)
        for (int64_t j = row == column ? i / 4 * 4 : j0; j < j1; j += 4) dot_block(image, step, i, j);
      if (step.start + step.count == image.length) mirror(image, i0, i1, j0, j1);
      if (++row > column) row = 0, ++column;
    }
  }
}

void dots(const GramCall &call, int64_t begin, int64_t end) {
  const int64_t side = (call.channels + call.block - 1) / call.block, blocks = side * (side + 1) / 2;
  while (begin < end) {
    const int64_t n = begin / blocks, last = end - n * blocks < blocks ? end - n * blocks : blocks;
    dots_of_image(call, image_of(call, n), begin - n * blocks, last);
    begin = n * blocks + last;
  }
}

// ---- panels ----

constexpr int64_t kPanelBlock = 256;  // of K

// Channels c .. c + kTileColumns of F^T; zeros past the last channel.
void pack_panel(const Image &f, int64_t c, float *panel) {
  const int width = f.channels - c < kTileColumns ? int(f.channels - c) : kTileColumns;
  const float *from = f.f + c * f.f_row;
  if (width < kTileColumns) memset(panel, 0, size_t(f.length * kTileColumns) * sizeof(float));
  if (f.f_row == 1) {
    for (int64_t k = 0; k < f.length; ++k)
      memcpy(panel + k * kTileColumns, from + k * f.f_column, size_t(width) * sizeof(float));
    return;
  }
  int64_t k = 0;
  if (f.f_column == 1) {
    for (; k + 4 <= f.length; k += 4) {
      int channel = 0;
      for (; channel + 4 <= width; channel += 4)
        turn(from + channel * f.f_row + k, f.f_row, panel + k * kTileColumns + channel, kTileColumns);
      for (; channel < width; ++channel)
        for (int step = 0; step < 4; ++step)
          panel[(k + step) * kTileColumns + channel] = from[channel * f.f_row + k + step];
    }
  }
  for (; k < f.length; ++k)
    for (int channel = 0; channel < width; ++channel)
      panel[k * kTileColumns + channel] = from[channel * f.f_row + k * f.f_column];
}

// Rows i .. i + kTileRows and the last kVectors vectors of columns of the panel that begins at column j.
template <int kVectors>
void panel_tile(const Image &image, const Step &step, const float *rows, const float *columns, int64_t i, int64_t j) {
  const int64_t skipped = kTileColumns - kVectors * lanes<float>;
  Tile<kVectors> tile;
  multiply(tile, rows, kTileColumns, columns + skipped, step.count);
  j += skipped;
  const int64_t height = image.channels - i < kTileRows ? image.channels - i : kTileRows;
  const int64_t width = image.channels - j < kVectors * lanes<float> ? image.channels - j : kVectors * lanes<float>;
  for (int64_t r = 0; r < height; ++r) {
    float *to = image.g + (i + r) * image.g_row + j * image.g_column;
    if (width == kVectors * lanes<float> && image.g_column == 1) {
      for (int v = 0; v < kVectors; ++v, to += lanes<float>)
        store(to, (step.first ? tile.sum[r][v] : load(to) + tile.sum[r][v]) * step.scale);
    } else {
      for (int64_t c = 0; c < width; ++c) {
        const float sum = tile.sum[r][c / lanes<float>][c % lanes<float>];
        float &value = to[c * image.g_column];
        value = (step.first ? sum : value + sum) * step.scale;
      }
    }
  }
}

// What a tile need not hold of its panel, for it is below the diagonal: vectors of columns.
void upper_tile(const Image &image, const Step &step, const float *rows, const float *columns, int64_t i, int64_t j) {
  const int64_t below = i < j ? 0 : (i - j) / lanes<float>;
  if (below == 0)
    panel_tile<kTileVectors>(image, step, rows, columns, i, j);
  else if (kTileVectors < 3 || below == 1)
    panel_tile<kTileVectors - 1>(image, step, rows, columns, i, j);
  else
    panel_tile<1>(image, step, rows, columns, i, j);
}

int64_t panels_of(const GramCall &call) { return (call.channels + kTileColumns - 1) / kTileColumns; }

void pack(const GramCall &call, int64_t begin, int64_t end) {
  const int64_t count = panels_of(call);
  for (int64_t unit = begin; unit < end; ++unit)
    pack_panel(image_of(call, call.first + unit / count), unit % count * kTileColumns,
               call.scratch + unit * call.length * kTileColumns);
}

void panels(const GramCall &call, int64_t begin, int64_t end) {
  const int64_t count = panels_of(call), size = call.length * kTileColumns;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t n = unit / count, panel = count - 1 - unit % count, j = panel * kTileColumns;  // the longest first
    const Image image = image_of(call, call.first + n);
    const float *packed = call.scratch + n * count * size;
    const int64_t last = j + kTileColumns < call.channels ? j + kTileColumns : call.channels;
    for (int64_t start = 0; start < call.length; start += kPanelBlock) {
      const Step step = step_at(call, start, kPanelBlock);
      for (int64_t i = 0; i < last; i += kTileRows)
        upper_tile(image, step, packed + i / kTileColumns * size + start * kTileColumns + i % kTileColumns,
                   packed + panel * size + start * kTileColumns, i, j);
    }
    for (int64_t i = 0; i < last; i += kTileColumns)
      mirror(image, i, i + kTileColumns < last ? i + kTileColumns : last, j, last);
  }
}

// ---- backward: (g + g^T) f / (C K) ----

// Rows i .. i + kTileRows of (g + g^T) / (C K), column by column; zeros past the last row.
void symmetric_strip(const GramCall &call, const float *g, int64_t i, float *strip) {
  const int64_t channels = call.channels, row = call.g.row, column = call.g.column;
  int64_t k = 0;
  if (column == 1 && i + kTileRows <= channels) {
    for (; k + 4 <= channels; k += 4) {
      for (int r = 0; r < kTileRows; r += 4) {
        float *to = strip + k * kTileRows + r;
        turn(g + (i + r) * row + k, row, to, kTileRows);
        for (int step = 0; step < 4; ++step) {
          FourAnywhere *four = reinterpret_cast<FourAnywhere *>(to + step * kTileRows);
          *four = (*four + *reinterpret_cast<const FourAnywhere *>(g + (k + step) * row + i + r)) * call.scale;
        }
      }
    }
  }
  for (; k < channels; ++k) {
    for (int64_t r = 0; r < kTileRows; ++r) {
      const float *here = g + (i + r) * row + k * column, *there = g + k * row + (i + r) * column;
      strip[k * kTileRows + r] = i + r < channels ? (*here + *there) * call.scale : 0;
    }
  }
}

void symmetrize(const GramCall &call, int64_t begin, int64_t end) {
  const int64_t count = (call.channels + kTileRows - 1) / kTileRows;
  for (int64_t unit = begin; unit < end; ++unit)
    symmetric_strip(call, call.g.data + (call.first + unit / count) * call.g.matrix, unit % count * kTileRows,
                    call.scratch + unit * call.channels * kTileRows);
}

// Rows i .. i + kTileRows of a panel's columns, `width` of them, at `to`.
template <int kVectors>
void product_tile(const GramCall &call, const float *strip, const float *panel, int64_t i, int64_t width, float *to) {
  Tile<kVectors> tile;
  multiply(tile, strip, kTileRows, panel, call.channels);
  const int64_t height = call.channels - i < kTileRows ? call.channels - i : kTileRows;
  for (int64_t r = 0; r < height; ++r, to += call.out.row) {
    if (width == kVectors * lanes<float> && call.out.column == 1)
      for (int v = 0; v < kVectors; ++v) store(to + v * lanes<float>, tile.sum[r][v]);
    else
      for (int64_t x = 0; x < width; ++x) to[x * call.out.column] = tile.sum[r][x / lanes<float>][x % lanes<float>];
  }
}

void product(const GramCall &call, float *panel, int64_t begin, int64_t end) {
  const int64_t channels = call.channels, count = (call.length + kTileColumns - 1) / kTileColumns;
  const int64_t strips = (channels + kTileRows - 1) / kTileRows;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t n = unit / count, k = unit % count * kTileColumns;
    const int64_t width = call.length - k < kTileColumns ? call.length - k : kTileColumns;
    const float *f = call.f.data + (call.first + n) * call.f.matrix + k * call.f.column;
    for (int64_t c = 0; c < channels; ++c) {
      float *to = panel + c * kTileColumns;
      const float *from = f + c * call.f.row;
      if (width == kTileColumns && call.f.column == 1) {
        for (int v = 0; v < kTileVectors; ++v) store(to + v * lanes<float>, load(from + v * lanes<float>));
      } else {
        for (int64_t x = 0; x < kTileColumns; ++x) to[x] = x < width ? from[x * call.f.column] : 0;
      }
    }
    float *out = call.out.data + (call.first + n) * call.out.matrix + k * call.out.column;
    const float *strip = call.scratch + n * strips * channels * kTileRows;
    for (int64_t i = 0; i < channels; i += kTileRows, strip += channels * kTileRows, out += kTileRows * call.out.row) {
      if (kTileVectors > 1 && width <= lanes<float>)
        product_tile<1>(call, strip, panel, i, width, out);
      else if (kTileVectors > 2 && width <= 2 * lanes<float>)
        product_tile<kTileVectors - 1>(call, strip, panel, i, width, out);
      else
        product_tile<kTileVectors>(call, strip, panel, i, width, out);
    }
  }
}

constexpr GramKernels kKernels = {kTileColumns, kTileRows, dots, pack, panels, symmetrize, product};

}  // namespace

GramKernels gram_kernels() { return kKernels; }

}  // namespace awase::cpu::AWASE_ISA
