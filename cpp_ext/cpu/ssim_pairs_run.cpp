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
  const Used used;
  int64_t begin = 0, end = 0;
  float *prepared = nullptr;  // [end - begin]

  Group(const awase_tensor &tensor, const int64_t *index, int64_t count) : tensor(tensor), used(index, count) {}
  int64_t count() const { return int64_t(used.images.size()); }
};

struct Pairs {
  Group a, b;
  PairStrip strip;  // at hand
  int64_t plane, first_row;
  std::vector<int64_t> order;  // pairs between the groups at hand, by first image
  std::vector<Sums> sums;      // of every pair
  std::atomic<bool> out_of_memory{false};

  Pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count)
      : a(a, i, count), b(b, j, count), sums(size_t(count)) {}

  // The strip in image k of those at hand, a's before b's.
  Pixels pixels(int64_t k) const {
    const int64_t count_a = a.end - a.begin;
    const Group &group = k < count_a ? a : b;
    const awase_tensor &t = group.tensor;
    const int64_t n = group.used.images[group.begin + (k < count_a ? k : k - count_a)];
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
      const int64_t count_a = a.end - a.begin;
      float *image = k < count_a ? a.prepared + k * strip.floats() : b.prepared + (k - count_a) * strip.floats();
      prepare(strip, here, next, image, scratch.get());
    }
  }

  void score_some(int64_t begin, int64_t end) {
    const Memory scratch = allocate(scratch_size(strip));
    if (!scratch) {
      out_of_memory = true;
      return;
    }
    const auto image = [&](const Group &group, int64_t m) {
      return group.prepared + (group.used.place[m] - group.begin) * strip.floats();
    };
    for (int64_t k = begin; k < end; ++k) {
      const int64_t m = order[k], next = order[k + 1 < end ? k + 1 : k];
      score(strip, image(a, m), image(b, m), image(b, next), sums[m].value, scratch.get());
    }
  }

  // Scores the pairs between the groups, all planes and strips of them.
  void score_groups(int64_t planes, int64_t height) {
    for (plane = 0; plane < planes; ++plane)
      for (first_row = 0; first_row < height - strip.reach(); first_row += kStripRows) {
        strip.height = int(std::min<int64_t>(kStripRows, height - strip.reach() - first_row)) + strip.reach();
        const int64_t grain = 50000 / (strip.pitch * strip.height);
        parallel(
            a.end - a.begin + b.end - b.begin, grain,
            [](void *pairs, int64_t begin, int64_t end) { static_cast<Pairs *>(pairs)->prepare_some(begin, end); },
            this);
        if (out_of_memory) throw std::bad_alloc();
        parallel(
            int64_t(order.size()), 2 * grain,
            [](void *pairs, int64_t begin, int64_t end) { static_cast<Pairs *>(pairs)->score_some(begin, end); }, this);
        if (out_of_memory) throw std::bad_alloc();
      }
  }

  void run(int64_t planes, int64_t height) {
    strip.height = kStripRows + strip.reach();
    // Half of the memory for the images of a, half for those of b; at least one each.
    const int64_t image_bytes = strip.floats() * int64_t(sizeof(float));
    const int64_t size = std::max<int64_t>(1, kMemory / 2 / image_bytes);
    const Memory memory_a = allocate(size_t(std::min(size, a.count()) * image_bytes));
    const Memory memory_b = allocate(size_t(std::min(size, b.count()) * image_bytes));
    if (!memory_a || !memory_b) throw std::bad_alloc();
    a.prepared = static_cast<float *>(memory_a.get());
    b.prepared = static_cast<float *>(memory_b.get());

    using Key = std::array<int64_t, 4>;  // group of a, group of b, place in a, place in b
    const auto key = [&](int64_t m) {
      return Key{a.used.place[m] / size, b.used.place[m] / size, a.used.place[m], b.used.place[m]};
    };
    std::vector<int64_t> sorted(sums.size());
    std::iota(sorted.begin(), sorted.end(), 0);
    std::stable_sort(sorted.begin(), sorted.end(), [&](int64_t m, int64_t n) { return key(m) < key(n); });
    for (size_t k = 0; k < sorted.size();) {
      const Key here = key(sorted[k]);
      order.clear();
      for (; k < sorted.size() && key(sorted[k])[0] == here[0] && key(sorted[k])[1] == here[1]; ++k)
        order.push_back(sorted[k]);
      a.begin = here[0] * size;
      a.end = std::min(a.count(), a.begin + size);
      b.begin = here[1] * size;
      b.end = std::min(b.count(), b.begin + size);
      score_groups(planes, height);
    }
  }
};

}  // namespace

void ssim_pairs(const awase_tensor &a, const awase_tensor &b, const int64_t *i, const int64_t *j, int64_t count,
                awase_window window, double data_range, const awase_tensor &scores) {
  if (count == 0 || a.shape[1] == 0) return;
  Pairs pairs(a, b, i, j, count);
  PairStrip &strip = pairs.strip;
  strip.bytes = a.dtype == AWASE_UINT8;
  strip.gaussian = window == AWASE_GAUSSIAN;
  strip.width = int(a.shape[3]);
  strip.data_range = data_range;
  strip.pitch = (strip.width + 15) / 16 * 16 + 32;
  const bool float32 = data_range >= 1e-6 && data_range <= 1e6;
  if (float32) pairs.run(a.shape[1], a.shape[2]);

  // What float32 cannot be trusted with is scored again (see ssim_run.cpp).
  std::vector<int64_t> again;
  const double pixels = double(a.shape[2] - strip.reach()) * double(a.shape[3] - strip.reach()) * double(a.shape[1]);
  double *out = static_cast<double *>(scores.data);
  for (int64_t m = 0; m < count; ++m) {
    const double *s = pairs.sums[m].value;
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
