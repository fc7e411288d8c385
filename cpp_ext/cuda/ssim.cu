// SSIM: how images are cut into blocks, and the kernels in their order.
#include "cuda/ssim.h"

#include <string>

#include "cuda/ssim.cuh"
#include "cuda/ssim_total.cuh"

namespace awase::cuda {
namespace {

// Estimate of the rounding error of a plane's score from which on it is computed again in binary64.
constexpr double kLimit = 2e-6;

constexpr int kThreads = Ssim<float, float, Gaussian>::kThreads;
// Rows of a band: more would leave a large image too few blocks, fewer would filter more rows twice.
constexpr int kMostRows = 128;

// The cut is a function of the images' size alone, so that the batch an image is in changes no bit of its score.
Tiling cut(int64_t images, const awase_tensor &a, int taps, int cores) {
  for (int axis = 1; axis < 4; ++axis)
    if (a.shape[axis] > INT32_MAX - 1024)
      throw Error(AWASE_INVALID, "a: got an axis of " + std::to_string(a.shape[axis]) + ", too long for CUDA kernels");
  Tiling tiling = {};
  tiling.channels = int(a.shape[1]);
  tiling.planes = images * tiling.channels;
  tiling.rows = int(a.shape[2]) - taps + 1, tiling.columns = int(a.shape[3]) - taps + 1;
  tiling.bands = int(divide_up(tiling.rows, kMostRows));
  tiling.band_rows = int(divide_up(divide_up(tiling.rows, tiling.bands), 8) * 8);
  tiling.bands = int(divide_up(tiling.rows, tiling.band_rows));

  // The widest tiles that leave few threads without a column.
  const int widest = kThreads - taps + 1;
  double best = 0;
  for (int tiles = int(divide_up(tiling.columns, widest)), tries = 0; tries < 6; ++tries, ++tiles) {
    const int columns = int(divide_up(tiling.columns, tiles));
    const int slot_width = int(divide_up(most<int64_t>(columns + taps - 1, divide_up(columns, 8) * 8), 8) * 8);
    if (slot_width > kThreads) continue;
    const int slots = kThreads / slot_width;
    const double threads = double(divide_up(slots * slot_width, 32) * 32) / slots * tiles;
    if (best && threads >= best) continue;
    best = threads;
    tiling.tiles = int(divide_up(tiling.columns, columns));
    tiling.tile_columns = columns;
    tiling.slot_width = slot_width;
    tiling.slots = slots;
  }
  // Few planes: rather more blocks than full ones.
  const int64_t blocks = 2 * int64_t(cores);
  tiling.slots = int(least<int64_t>(tiling.slots, most<int64_t>(1, tiling.planes * tiling.parts() / blocks)));
  tiling.threads = int(divide_up(tiling.slots * tiling.slot_width, 32) * 32);
  const int last = tiling.columns - (tiling.tiles - 1) * tiling.tile_columns;
  tiling.samples = tiling.rows * ((tiling.tiles - 1) * divide_up(tiling.tile_columns, 8) + divide_up(last, 8));
  return tiling;
}

Images images(const awase_tensor &x) { return {x.data, x.strides[0], x.strides[1], x.strides[2], x.strides[3]}; }

template <class In, class Window>
void enqueue(const awase_tensor &a, const awase_tensor &b, const Pair *pairs, int64_t count, double data_range,
           const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map, const Stream &stream) {
  const Tiling tiling = cut(count, a, Window::kTaps, stream.cores());
  const int64_t parts = tiling.planes * tiling.parts(), flags = divide_up(tiling.planes, 8) * 8;
  const Scratch scratch(stream, 2 * parts * int64_t(sizeof(Partial)) + 8 * (tiling.planes + 1) + flags);
  Partial *partials = scratch.at<Partial>(), *exact = partials + parts;
  int64_t *again = reinterpret_cast<int64_t *>(exact + parts);

  int exponent = 0;
  std::frexp(data_range, &exponent);
  exponent = most(-120, least(120, -exponent));
  const double scale = std::ldexp(1.0, exponent), scaled = data_range * scale;
  const double c1 = 2 * (0.01 * scaled) * (0.01 * scaled), c2 = 2 * (0.03 * scaled) * (0.03 * scaled);

  Ssim<In, float, Window> quick = {};
  quick.tiling = tiling;
  quick.a = images(a), quick.b = images(b), quick.pairs = pairs;
  quick.scale = float(scale), quick.c1 = float(c1), quick.c2 = float(c2);
  quick.partials = partials, quick.again = again;
  if (map) {
    quick.map = static_cast<float *>(map->data);
    quick.map_n = map->strides[0], quick.map_c = map->strides[1];
    quick.map_h = map->strides[2], quick.map_w = map->strides[3];
  }
  launch(quick, quick.items(), tiling.threads, stream);

  Total total = {};
  total.tiling = tiling;
  total.threads = tiling.parts() <= 32 ? 32 : Total::kThreads;
  total.limit = kLimit * 0x1p23 * double(tiling.samples);  // the estimates lack their factor of 2 eps
  total.partials = partials, total.exact = exact;
  total.again = again;
  total.flags = reinterpret_cast<uint8_t *>(again + 1 + tiling.planes);
  if (scores) total.scores = static_cast<double *>(scores->data), total.scores_n = scores->strides[0];
  if (channels) {
    total.channels = static_cast<double *>(channels->data);
    total.channels_n = channels->strides[0], total.channels_c = channels->strides[1];
  }
  launch(total, count, total.threads, stream);

  // How many planes there are to score again is known on the device only: a fixed number of blocks shares them out.
  Ssim<In, double, Window> slow = {};
  slow.tiling = tiling;
  slow.a = quick.a, slow.b = quick.b, slow.pairs = pairs;
  slow.scale = scale, slow.c1 = c1, slow.c2 = c2;
  slow.partials = exact, slow.again = again;
  slow.map = quick.map, slow.map_n = quick.map_n, slow.map_c = quick.map_c;
  slow.map_h = quick.map_h, slow.map_w = quick.map_w;
  slow.grid = least<int64_t>(quick.items(), stream.cores());
  launch(slow, slow.grid, tiling.threads, stream);
  total.second = true;
  launch(total, count, total.threads, stream);
}

}  // namespace

void score(const awase_tensor &a, const awase_tensor &b, const Pair *pairs, int64_t count, awase_window window,
           double data_range, const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map,
           const Stream &stream) {
  if (!count || !a.shape[1]) return;
  const bool gaussian = window == AWASE_GAUSSIAN;
  auto *run = gaussian ? enqueue<float, Gaussian> : enqueue<float, Uniform>;
  if (a.dtype == AWASE_UINT8) run = gaussian ? enqueue<uint8_t, Gaussian> : enqueue<uint8_t, Uniform>;
  if (a.dtype == AWASE_FLOAT16) run = gaussian ? enqueue<Half, Gaussian> : enqueue<Half, Uniform>;
  run(a, b, pairs, count, data_range, scores, channels, map, stream);
}

void ssim(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range,
          const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map, void *stream) {
  score(a, b, nullptr, a.shape[0], window, data_range, scores, channels, map, Stream(a.device, stream));
}

}  // namespace awase::cuda
