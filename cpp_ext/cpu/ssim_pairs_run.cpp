// SSIM of chosen pairs: strip by strip, every image that is named is prepared once, then the pairs are scored in the
// order of their first image. Where the prepared strips would not fit kMemory, images are taken in groups; a pair's
// score is the same whatever the group.
#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <new>
#include <numeric>
#include <vector>

#include "cpu/parallel.h"
#include "cpu/ssim_kernels.h"
#include "src/operations.h"

namespace awase::cpu {
namespace {

constexpr int64_t kMemory = int64_t(1) << 30;  // bytes

size_t scratch_size(const PairStrip &strip) { AWASE_DISPATCH(pair_scratch, strip); }
void prepare(const PairStrip &strip, const Pixels &pixels, const Pixels &next, float *image, void *scratch) {
  AWASE_DISPATCH(prepare_strip, strip, pixels, next, image, scratch);
}
void score(const PairStrip &strip, const float *x, const float *y, const float *next, double *sums, void *scratch) {
  AWASE_DISPATCH(score_strip, strip, x, y, next, sums, scratch);
}

using Memory = std::unique_ptr<void, void (*)(void *)>;
Memory allocate(size_t bytes) { return Memory(std::aligned_alloc(64, (bytes + 63) / 64 * 64), std::free); }

// The images of a or b that pairs name, ascending; and where in them each pair's image is.
struct Used {
  std::vector<int64_t> images, place;
  Used(const int64_t *index, int64_t count) : images(index, index + count), place(size_t(count)) {
    std::sort(images.begin(), images.end());
    images.erase(std::unique(images.begin(), images.end()), images.end());
    for (int64_t m = 0; m < count; ++m)
      place[m] = std::lower_bound(images.begin(), images.end(), index[m]) - images.begin();
  }
};

struct Sums {
  double value[3];  // as score_strip adds them up: scores, errors, how many errors
};

// The images of one argument that are at hand: places begin to end among its used ones.
struct Group {
  const awase_tensor &tensor;
  const Used &used;
  int64_t begin, end;

  int64_t size() const { return end - begin; }
};

// A strip of one plane, and all that is scored in it between two groups of images.
struct Unit {
  PairStrip strip;
  int64_t plane, first_row;
  Group a, b;
  const int64_t *order;  // [count] the pairs, by first image
  int64_t count;
  Sums *sums;  // [count], of this strip
  float *prepared;  // [a.size() + b.size()]
  std::atomic<bool> out_of_memory{false};

  // The strip in image k of those at hand, a's before b's.
  Pixels pixels(int64_t k) const {
    const Group &group = k < a.size() ? a : b;
    const awase_tensor &t = group.tensor;
    const int64_t n = group.used.images[group.begin + (k < a.size() ? k : k - a.size())];
    const int64_t offset = n * t.strides[0] + plane * t.strides[1] + first_row * t.strides[2];
    return {static_cast<const char *>(t.data) + offset * (strip.bytes ? 1 : 4), t.strides[2], t.strides[3]};
  }

  void prepare_some(int64_t begin, int64_t end) {
    const Memory scratch = allocate(scratch_size(strip));
    if (!scratch) {
      out_of_memory = true;
      return;
    }
    Pixels next = pixels(begin);
    for (int64_t k = begin; k < end; ++k) {
      const Pixels here = next;
      if (k + 1 < end) next = pixels(k + 1);
      prepare(strip, here, next, prepared + k * strip.floats(), scratch.get());
    }
  }

  void score_some(int64_t begin, int64_t end) {
    const Memory scratch = allocate(scratch_size(strip));
    if (!scratch) {
      out_of_memory = true;
      return;
    }
    const auto image_a = [&](int64_t m) { return prepared + (a.used.place[m] - a.begin) * strip.floats(); };
    const auto image_b = [&](int64_t m) { return prepared + (a.size() + b.used.place[m] - b.begin) * strip.floats(); };
    for (int64_t k = begin; k < end; ++k) {
      const int64_t m = order[k], next = order[k + 1 < end ? k + 1 : k];
      sums[k] = {};
      score(strip, image_a(m), image_b(m), image_b(next), sums[k].value, scratch.get());
    }
  }

  void run() {
    const int64_t grain = 50000 / (strip.pitch * strip.height);
    parallel(
        a.size() + b.size(), grain,
        [](void *unit, int64_t begin, int64_t end) { static_cast<Unit *>(unit)->prepare_some(begin, end); }, this);
    if (out_of_memory) return;
    parallel(
        count, 2 * grain,
        [](void *unit, int64_t begin, int64_t end) { static_cast<Unit *>(unit)->score_some(begin, end); }, this);
  }
};

// All strips of all planes, for the pairs between two groups of images.
struct Block {
  PairStrip strip;
  int64_t height;        // of the images
  int64_t strips, units;  // strips of a plane, of all planes
  Group a, b;
  const int64_t *order;
  int64_t count;
  std::vector<Sums> sums;  // [units, count]
  std::atomic<bool> out_of_memory{false};

  void run_some(int64_t begin, int64_t end) {
    const Memory prepared = allocate(size_t((a.size() + b.size()) * strip.floats()) * sizeof(float));
    for (int64_t k = begin; k < end && !out_of_memory; ++k) {
      const int64_t first_row = k % strips * kStripRows;
      Unit unit{strip, k / strips, first_row, a, b, order, count, sums.data() + k * count,
                static_cast<float *>(prepared.get()), {}};
      unit.strip.height = int(std::min<int64_t>(kStripRows, height - strip.reach() - first_row)) + strip.reach();
      if (prepared) unit.run();
      if (!prepared || unit.out_of_memory) out_of_memory = true;
    }
  }

  // Adds the sums of each pair to total[pair]. Where there are strips enough, each thread takes whole ones, so that none
  // waits for another and images prepared stay in its own cache; else all threads work on one strip. The bits are the
  // same.
  void run(Sums *total) {
    sums.resize(size_t(units * count));
    if (units >= 2 * threads())
      parallel(
          units, 1,
          [](void *block, int64_t begin, int64_t end) { static_cast<Block *>(block)->run_some(begin, end); }, this);
    else
      run_some(0, units);
    if (out_of_memory) throw std::bad_alloc();
    for (int64_t k = 0; k < units; ++k)
      for (int64_t m = 0; m < count; ++m)
        for (int v = 0; v < 3; ++v) total[order[m]].value[v] += sums[k * count + m].value[v];
  }
};

void score_all(const PairStrip &strip, const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j,
               int64_t count, Sums *total) {
  const Used used_a(i, count), used_b(j, count);
  const int64_t size_a = int64_t(used_a.images.size()), size_b = int64_t(used_b.images.size());
  const int64_t strips = (a.shape[2] - strip.reach() + kStripRows - 1) / kStripRows, units = strips * a.shape[1];
  // Half of the memory for the images of a, half for those of b; at least one each.
  PairStrip whole = strip;
  whole.height = kStripRows + strip.reach();
  const int64_t image_bytes = whole.floats() * int64_t(sizeof(float)) * threads();
  const int64_t size = std::max<int64_t>(1, kMemory / 2 / image_bytes);
  const int64_t most = std::max<int64_t>(1024, kMemory / 4 / (units * int64_t(sizeof(Sums))));

  using Key = std::array<int64_t, 4>;  // group of a, group of b, place in a, place in b
  const auto key = [&](int64_t m) {
    return Key{used_a.place[m] / size, used_b.place[m] / size, used_a.place[m], used_b.place[m]};
  };
  std::vector<int64_t> order(static_cast<size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t m, int64_t n) { return key(m) < key(n); });
  for (int64_t begin = 0, end; begin < count; begin = end) {
    const Key here = key(order[begin]);
    for (end = begin; end < count && end - begin < most; ++end)
      if (key(order[end])[0] != here[0] || key(order[end])[1] != here[1]) break;
    Block block{whole,
                a.shape[2],
                strips,
                units,
                {a, used_a, here[0] * size, std::min(size_a, (here[0] + 1) * size)},
                {b, used_b, here[1] * size, std::min(size_b, (here[1] + 1) * size)},
                order.data() + begin,
                end - begin,
                {},
                {}};
    block.run(total);
  }
}

}  // namespace

void ssim_pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count,
                awase_window window, double data_range, const awase_tensor &scores) {
  if (count == 0 || a.shape[1] == 0) return;
  std::vector<Sums> sums(static_cast<size_t>(count));
  PairStrip strip{};
  strip.bytes = a.dtype == AWASE_UINT8;
  strip.gaussian = window == AWASE_GAUSSIAN;
  strip.width = int(a.shape[3]);
  strip.data_range = data_range;
  strip.pitch = (strip.width + 15) / 16 * 16 + 32;
  const bool float32 = data_range >= 1e-6 && data_range <= 1e6;
  if (float32) score_all(strip, a, b, i, j, count, sums.data());

  // What float32 cannot be trusted with is scored again (see ssim_run.cpp).
  std::vector<int64_t> again;
  const double pixels = double(a.shape[2] - strip.reach()) * double(a.shape[3] - strip.reach()) * double(a.shape[1]);
  double *out = static_cast<double *>(scores.data);
  for (int64_t m = 0; m < count; ++m) {
    const double *s = sums[m].value;
    out[m * scores.strides[0]] = s[0] / pixels;
    if (!float32 || !std::isfinite(s[0] + s[1]) || !(s[1] / s[2] <= kPairErrorLimit)) again.push_back(m);
  }
  struct Context {
    const awase_tensor &a, &b;
    const int64_t *i, *j;
    const std::vector<int64_t> &again;
    awase_window window;
    double data_range;
    const awase_tensor &scores;
    std::atomic<bool> failed{false};
  } context{a, b, i, j, again, window, data_range, scores, {}};
  parallel(
      int64_t(again.size()), 1,
      [](void *given, int64_t begin, int64_t end) {
        Context &c = *static_cast<Context *>(given);
        for (int64_t k = begin; k < end; ++k) {
          const int64_t m = c.again[k];
          try {
            static_cast<double *>(c.scores.data)[m * c.scores.strides[0]] =
                ssim_one(c.a, c.b, c.i[m], c.j[m], c.window, c.data_range);
          } catch (const std::bad_alloc &) {
            c.failed = true;
          }
        }
      },
      &context);
  if (context.failed) throw std::bad_alloc();
}

}  // namespace awase::cpu
