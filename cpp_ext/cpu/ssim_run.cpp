// SSIM of a batch: cut into pieces whose shapes depend on the images alone, so that neither the number of threads nor
// the rest of the batch changes a bit of a result.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/ssim_kernels.h"
#include "src/operations.h"

namespace awase::cpu {
namespace {

size_t scratch_size(const SsimPiece &piece) { AWASE_DISPATCH(ssim_scratch, piece); }
void run_piece(const SsimPiece &piece, const SsimPiece &next, void *scratch) {
  AWASE_DISPATCH(ssim_piece, piece, next, scratch);
}

// Channels that lie side by side are filtered together, if they are few.
bool interleaved(const awase_tensor &t) {
  return t.shape[1] > 1 && t.shape[1] <= 32 && t.strides[1] == 1 && t.strides[3] == t.shape[1];
}

// Where one image is cut: `count` parts of at most `size` of `total`
struct Cuts {
  int64_t total, size, count;
  Cuts(int64_t total, int64_t most, int64_t multiple) : total(total) {
    count = (total + most - 1) / most;
    size = ((total + count - 1) / count + multiple - 1) / multiple * multiple;
    count = (total + size - 1) / size;
  }
  int64_t begin(int64_t k) const { return k * size; }
  int64_t length(int64_t k) const { return std::min(size, total - k * size); }
};

struct Batch {
  const awase_tensor &a, &b;
  const awase_tensor *map;
  const bool gaussian, per_channel, exact;
  const double data_range;
  const int64_t reach, step, planes;
  const Cuts down, across;  // of the scores: rows and pixels
  std::vector<double> sums;  // [N, planes, down, across, step]
  std::atomic<bool> out_of_memory{false};

  Batch(const awase_tensor &a, const awase_tensor &b, const awase_tensor *map, bool gaussian, bool per_channel,
        bool exact, double data_range)
      : a(a),
        b(b),
        map(map),
        gaussian(gaussian),
        per_channel(per_channel),
        exact(exact),
        data_range(data_range),
        reach(gaussian ? 10 : 6),
        step(interleaved(a) && interleaved(b) ? a.shape[1] : 1),
        planes(a.shape[1] / step),
        down(a.shape[2] - reach, kPieceRows, 8),
        across(a.shape[3] - reach, std::max<int64_t>(1, kPieceWidth / step), 16),
        sums(size_t(pieces() * step)) {}

  int64_t pieces() const { return a.shape[0] * planes * down.count * across.count; }

  SsimPiece piece(int64_t index) const {
    const int64_t x = index % across.count, y = index / across.count % down.count;
    const int64_t plane = index / (across.count * down.count) % planes;
    const int64_t n = index / (across.count * down.count * planes);
    SsimPiece p{};
    p.bytes = a.dtype == AWASE_UINT8;
    p.gaussian = gaussian;
    p.exact = exact || data_range < 1e-6 || data_range > 1e6;  // where float32 under- or overflows
    p.height = int(down.length(y) + reach);
    p.width = int((across.length(x) + reach) * step);
    p.step = int(step);
    p.data_range = data_range;
    const auto pixels = [&](const awase_tensor &t) {
      const int64_t offset =
          n * t.strides[0] + plane * t.strides[1] + down.begin(y) * t.strides[2] + across.begin(x) * t.strides[3];
      const char *data = static_cast<const char *>(t.data) + offset * (p.bytes ? 1 : 4);
      return Pixels{data, t.strides[2], step > 1 ? 1 : t.strides[3]};
    };
    p.a = pixels(a);
    p.b = pixels(b);
    if (map) {
      p.map = static_cast<float *>(map->data) + n * map->strides[0] + plane * map->strides[1] +
              down.begin(y) * map->strides[2] + across.begin(x) * map->strides[3];
      p.map_channel = map->strides[1];
      p.map_down = map->strides[2];
      p.map_across = map->strides[3];
    }
    return p;
  }

  void run(int64_t begin, int64_t end) {
    SsimPiece largest = piece(0);
    const size_t size = (scratch_size(largest) + 63) / 64 * 64;
    const std::unique_ptr<void, void (*)(void *)> scratch(std::aligned_alloc(64, size), std::free);
    const std::unique_ptr<double[]> errors(new (std::nothrow) double[step]);
    if (!scratch || !errors) {
      out_of_memory = true;
      return;
    }
    for (int64_t k = begin; k < end; ++k) {
      SsimPiece p = piece(k);
      const SsimPiece next = piece(k + 1 < end ? k + 1 : k);
      p.sums = sums.data() + k * step;
      p.errors = errors.get();
      run_piece(p, next, scratch.get());
      if (!p.exact && !trusted(p)) {
        p.exact = true;
        run_piece(p, next, scratch.get());
      }
    }
  }

  // Is float32 good for 1e-6? A NaN is not to be trusted: it may be an overflow.
  bool trusted(const SsimPiece &p) const {
    double mean = 0, worst = 0, sum = 0;
    for (int64_t k = 0; k < step; ++k) {
      mean += p.errors[k] / double(step);
      worst = std::max(worst, p.errors[k]);
      sum += p.sums[k];
    }
    return std::isfinite(sum + mean) && (per_channel ? worst : mean) <= ssim_error_limit(p.gaussian);
  }
};

}  // namespace

double ssim_one(const awase_tensor &a, const awase_tensor &b, int64_t i, int64_t j, awase_window window,
                double data_range) {
  const auto one = [](awase_tensor t, int64_t n) {
    t.data = static_cast<char *>(t.data) + n * t.strides[0] * (t.dtype == AWASE_UINT8 ? 1 : 4);
    t.shape[0] = 1;
    return t;
  };
  const awase_tensor x = one(a, i), y = one(b, j);
  Batch batch(x, y, nullptr, window == AWASE_GAUSSIAN, false, false, data_range);
  batch.run(0, batch.pieces());
  if (batch.out_of_memory) throw std::bad_alloc();
  double sum = 0;
  for (double part : batch.sums) sum += part;
  return sum / (double(batch.down.total) * double(batch.across.total) * double(a.shape[1]));
}

void ssim(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range,
          const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map) {
  const int64_t count = a.shape[0], depth = a.shape[1];
  if (count == 0 || depth == 0) return;
  // The map is made in float64: its pixels cannot be scored again one by one.
  Batch batch(a, b, map, window == AWASE_GAUSSIAN, channels != nullptr, map != nullptr, data_range);
  const int64_t work = batch.down.size * batch.across.size * batch.step;  // of a piece; waking a thread is worth 50,000
  parallel(
      batch.pieces(), 50000 / work,
      [](void *context, int64_t begin, int64_t end) { static_cast<Batch *>(context)->run(begin, end); }, &batch);
  if (batch.out_of_memory) throw std::bad_alloc();

  const int64_t parts = batch.down.count * batch.across.count;
  const double pixels = double(batch.down.total) * double(batch.across.total);
  for (int64_t n = 0; n < count; ++n) {
    double image = 0;
    for (int64_t c = 0; c < depth; ++c) {
      const int64_t plane = batch.step > 1 ? 0 : c, lane = batch.step > 1 ? c : 0;
      double sum = 0;
      for (int64_t k = 0; k < parts; ++k)
        sum += batch.sums[((n * batch.planes + plane) * parts + k) * batch.step + lane];
      if (channels)
        static_cast<double *>(channels->data)[n * channels->strides[0] + c * channels->strides[1]] = sum / pixels;
      image += sum;
    }
    if (scores) static_cast<double *>(scores->data)[n * scores->strides[0]] = image / (pixels * double(depth));
  }
}

}  // namespace awase::cpu
