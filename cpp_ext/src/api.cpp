// The C interface: check the arguments, go to the CPU's or CUDA's kernels, turn what is thrown into a status.
#include <new>
#include <string>
#include <vector>

#include "awase/awase.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"
#include "src/check.h"
#include "src/error.h"
#include "src/operations.h"

using namespace awase;

namespace {

thread_local std::string message;

awase_status failed(awase_status status, const char *text) noexcept {
  try {
    message = text;
  } catch (...) {  // no memory for it: the status must do
    message.clear();
  }
  return status;
}

template <class Call>
awase_status guard(Call call) noexcept {
  try {
    call();
    return AWASE_OK;
  } catch (const Error &error) {
    return failed(error.status, error.what());
  } catch (const std::bad_alloc &) {
    return failed(AWASE_OUT_OF_MEMORY, "out of host memory");
  } catch (const std::exception &error) {
    return failed(AWASE_INTERNAL, error.what());
  } catch (...) {
    return failed(AWASE_INTERNAL, "an unknown exception");
  }
}

// ---- images ----

constexpr const char *kImages = "images [N, C, H, W]";

const awase_tensor &images(const char *name, const awase_tensor *pointer) {
  const awase_tensor &t = input(name, pointer, {AWASE_UINT8, AWASE_FLOAT32, AWASE_FLOAT16}, 4, kImages);
  if (t.dtype == AWASE_FLOAT16 && t.device == AWASE_CPU)
    refuse(name, describe(t), "uint8 or float32 images in host memory (float16 is for CUDA)");
  return t;
}

// b is like a, but in the number of images; both are large enough for the window.
void alike(const awase_tensor &a, const awase_tensor &b, awase_window window, double data_range) {
  if (window != AWASE_UNIFORM && window != AWASE_GAUSSIAN)
    refuse("window", std::to_string(int(window)), "AWASE_UNIFORM or AWASE_GAUSSIAN");
  if (!(data_range > 0) || data_range > 1e30)
    refuse("data_range", std::to_string(data_range), "a positive number (white minus black)");
  same_device("b", b, "a", a);
  if (a.dtype != b.dtype) refuse("b", describe(b), "the dtype of a, " + describe(a));
  for (int k = 1; k < 4; ++k)
    if (a.shape[k] != b.shape[k]) refuse("b", describe(b), "images like a's, " + describe(a));
  const int64_t size = window == AWASE_GAUSSIAN ? 11 : 7;
  if (a.shape[1] < 1 || a.shape[2] < size || a.shape[3] < size)
    refuse("a", describe(a), "at least one channel and " + std::to_string(size) + " x " + std::to_string(size) + " pixels");
}

}  // namespace

extern "C" {

// ---- about this library and this machine ----

int awase_version(void) { return AWASE_VERSION; }

const char *awase_last_error(void) { return message.c_str(); }

const char *awase_isa(void) {
  const char *name = "";
  guard([&] { name = cpu::isa_name(); });
  return name;
}

awase_status awase_set_isa(const char *name) {
  return guard([&] { cpu::set_isa(name); });
}

int awase_threads(void) {
  int count = 0;
  guard([&] { count = cpu::threads(); });
  return count;
}

awase_status awase_set_threads(int count) {
  return guard([&] { cpu::set_threads(count); });
}

awase_status awase_cuda_devices(int *count) {
  return guard([&] {
    if (!count) refuse("count", "NULL", "a pointer to an int");
    *count = 0;
    *count = cuda::devices();
  });
}

awase_status awase_cuda_device_of(const void *pointer, int32_t *device) {
  return guard([&] {
    if (!device) refuse("device", "NULL", "a pointer to an int32_t");
    *device = cuda::device_of(pointer);
    if (*device < 0) refuse("pointer", "host memory", "memory of a CUDA device");
  });
}

// ---- operations ----

awase_status awase_ssim(const awase_tensor *a, const awase_tensor *b, awase_window window, double data_range,
                        const awase_tensor *scores, const awase_tensor *channels, const awase_tensor *map,
                        void *stream) {
  return guard([&] {
    const awase_tensor &x = images("a", a), &y = images("b", b);
    alike(x, y, window, data_range);
    const int64_t n = x.shape[0], c = x.shape[1], reach = window == AWASE_GAUSSIAN ? 10 : 6;
    if (y.shape[0] != n) refuse("b", describe(y), std::to_string(n) + " images like a");
    if (!scores && !channels && !map) refuse("scores", "NULL for scores, channels and map", "at least one of them");
    if (scores) output("scores", scores, AWASE_FLOAT64, {n});
    if (channels) output("channels", channels, AWASE_FLOAT64, {n, c});
    if (map) output("map", map, AWASE_FLOAT32, {n, c, x.shape[2] - reach, x.shape[3] - reach});
    const awase_tensor *outs[] = {scores, channels, map};
    const char *names[] = {"scores", "channels", "map"};
    for (int k = 0; k < 3; ++k) {
      if (!outs[k]) continue;
      same_device(names[k], *outs[k], "a", x);
      apart(names[k], *outs[k], "a", x);
      apart(names[k], *outs[k], "b", y);
      for (int other = 0; other < k; ++other)
        if (outs[other]) apart(names[k], *outs[k], names[other], *outs[other]);
    }
    if (n == 0) return;
    if (x.device == AWASE_CPU)
      cpu::ssim(x, y, window, data_range, scores, channels, map);
    else
      cuda::ssim(x, y, window, data_range, scores, channels, map, stream);
  });
}

awase_status awase_ssim_pairs(const awase_tensor *a, const awase_tensor *b, const awase_tensor *i,
                              const awase_tensor *j, awase_window window, double data_range,
                              const awase_tensor *scores, void *stream) {
  return guard([&] {
    const awase_tensor &x = images("a", a), &y = images("b", b);
    alike(x, y, window, data_range);
    const awase_tensor *given[] = {i, j};
    const char *names[] = {"i", "j"};
    const int64_t counts[] = {x.shape[0], y.shape[0]};
    std::vector<int64_t> indices[2];
    for (int k = 0; k < 2; ++k) {
      const awase_tensor &t = input(names[k], given[k], {AWASE_INT64}, 1, "indices [M] in host memory");
      if (t.device != AWASE_CPU) refuse(names[k], describe(t), "indices in host memory");
      for (int64_t m = 0; m < t.shape[0]; ++m) {
        const int64_t index = static_cast<const int64_t *>(t.data)[m * t.strides[0]];
        if (index < 0 || index >= counts[k])
          refuse(names[k], "index " + std::to_string(index), "0 to " + std::to_string(counts[k] - 1));
        indices[k].push_back(index);
      }
    }
    const int64_t count = i->shape[0];
    if (j->shape[0] != count) refuse("j", describe(*j), std::to_string(count) + " indices like i");
    output("scores", scores, AWASE_FLOAT64, {count});
    same_device("scores", *scores, "a", x);
    apart("scores", *scores, "a", x);
    apart("scores", *scores, "b", y);
    if (count == 0) return;
    if (x.device == AWASE_CPU)
      cpu::ssim_pairs(x, y, indices[0].data(), indices[1].data(), count, window, data_range, *scores);
    else
      cuda::ssim_pairs(x, y, indices[0].data(), indices[1].data(), count, window, data_range, *scores, stream);
  });
}

awase_status awase_gram(const awase_tensor *f, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &x = input("f", f, {AWASE_FLOAT32}, 3, "features [N, C, K]");
    output("out", out, AWASE_FLOAT32, {x.shape[0], x.shape[1], x.shape[1]});
    same_device("out", *out, "f", x);
    apart("out", *out, "f", x);
    if (x.shape[0] == 0 || x.shape[1] == 0) return;
    if (x.shape[2] == 0) refuse("f", describe(x), "K of at least 1");
    if (x.device == AWASE_CPU)
      cpu::gram(x, *out);
    else
      cuda::gram(x, *out, stream);
  });
}

awase_status awase_gram_backward(const awase_tensor *f, const awase_tensor *g, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &x = input("f", f, {AWASE_FLOAT32}, 3, "features [N, C, K]");
    const awase_tensor &y = input("g", g, {AWASE_FLOAT32}, 3, "the gradient [N, C, C]");
    if (y.shape[0] != x.shape[0] || y.shape[1] != x.shape[1] || y.shape[2] != x.shape[1])
      refuse("g", describe(y), "[N, C, C] for f, " + describe(x));
    output("out", out, AWASE_FLOAT32, {x.shape[0], x.shape[1], x.shape[2]});
    same_device("g", y, "f", x);
    same_device("out", *out, "f", x);
    apart("out", *out, "f", x);
    apart("out", *out, "g", y);
    if (elements(x) == 0) return;
    if (x.device == AWASE_CPU)
      cpu::gram_backward(x, y, *out);
    else
      cuda::gram_backward(x, y, *out, stream);
  });
}

awase_status awase_blend(const awase_tensor *za, const awase_tensor *zb, const awase_tensor *weights,
                         const awase_tensor *parts, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &a = input("za", za, {AWASE_FLOAT32}, 4, "latents [N, C, H, W]");
    const awase_tensor &b = input("zb", zb, {AWASE_FLOAT32}, 4, "latents [N, C, H, W]");
    const awase_tensor &w = input("weights", weights, {AWASE_FLOAT32}, 2, "[L, P]");
    const awase_tensor &p = input("parts", parts, {AWASE_INT64}, 1, "channel counts [P] in host memory");
    same_device("zb", b, "za", a);
    for (int k = 0; k < 4; ++k)
      if (a.shape[k] != b.shape[k]) refuse("zb", describe(b), "the shape of za, " + describe(a));
    if (p.device != AWASE_CPU) refuse("parts", describe(p), "channel counts in host memory");
    std::vector<int64_t> ends;
    int64_t channels = 0;
    for (int64_t k = 0; k < p.shape[0]; ++k) {
      const int64_t count = static_cast<const int64_t *>(p.data)[k * p.strides[0]];
      if (count < 1 || count > a.shape[1]) refuse("parts", "a part of " + std::to_string(count) + " channels", "1 or more");
      ends.push_back(channels += count);
    }
    if (channels != a.shape[1])
      refuse("parts", "parts of " + std::to_string(channels) + " channels in all", "za's " + std::to_string(a.shape[1]));
    const int64_t n = a.shape[0], rows = w.shape[0], l = n == 1 ? rows : n;
    if (w.shape[1] != p.shape[0] || (rows != l && rows != 1))
      refuse("weights", describe(w),
             "[" + (n == 1 ? std::string("L") : std::to_string(n) + " or 1") + ", " + std::to_string(p.shape[0]) + "]");
    if (w.device != AWASE_CPU) same_device("weights", w, "za", a);
    output("out", out, AWASE_FLOAT32, {l, a.shape[1], a.shape[2], a.shape[3]});
    same_device("out", *out, "za", a);
    for (const awase_tensor *in : {za, zb}) {
      bool itself = in->data == out->data && in->shape[0] == l;
      for (int k = 0; k < 4; ++k) itself &= in->strides[k] == out->strides[k] || in->shape[k] == 1;
      if (!itself) apart("out", *out, in == za ? "za" : "zb", *in);
    }
    apart("out", *out, "weights", w);
    if (elements(*out) == 0) return;
    if (a.device == AWASE_CPU)
      cpu::blend(a, b, w, Parts{p.shape[0], ends.data()}, *out);
    else
      cuda::blend(a, b, w, Parts{p.shape[0], ends.data()}, *out, stream);
  });
}

awase_status awase_noise(uint64_t seed, uint64_t first, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &z = input("out", out, {AWASE_FLOAT32}, 2, "[count, dim]");
    output("out", out, AWASE_FLOAT32, {z.shape[0], z.shape[1]});
    if (z.shape[0] && uint64_t(z.shape[0] - 1) > UINT64_MAX - first)
      refuse("first", std::to_string(first) + " with " + std::to_string(z.shape[0]) + " samples",
             "samples below 2^64");
    if (z.shape[1] > (int64_t(1) << 34)) refuse("out", describe(z), "dim of at most 2^34");
    if (elements(z) == 0) return;
    if (z.device == AWASE_CPU)
      cpu::noise(seed, first, z);
    else
      cuda::noise(seed, first, z, stream);
  });
}

awase_status awase_pack(const awase_tensor *x, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &t = input("x", x, {AWASE_FLOAT32, AWASE_FLOAT16}, 4, "[N, C, H, W]");
    if (t.dtype == AWASE_FLOAT16 && t.device == AWASE_CPU)
      refuse("x", describe(t), "float32 [N, C, H, W] in host memory (float16 is for CUDA)");
    const bool alpha = t.shape[1] == 3 && out && out->rank == 4 && out->shape[2] == t.shape[3] && out->shape[3] == 4;
    output("out", out, AWASE_UINT8, {t.shape[0], t.shape[2], t.shape[3], alpha ? 4 : t.shape[1]});
    same_device("out", *out, "x", t);
    apart("out", *out, "x", t);
    if (elements(t) == 0) return;
    if (t.device == AWASE_CPU)
      cpu::pack(t, *out);
    else
      cuda::pack(t, *out, stream);
  });
}

awase_status awase_unpack(const awase_tensor *u, const awase_tensor *out, void *stream) {
  return guard([&] {
    const awase_tensor &t = input("u", u, {AWASE_UINT8}, 4, "[N, H, W, C]");
    output("out", out, AWASE_FLOAT32, {t.shape[0], t.shape[3], t.shape[1], t.shape[2]});
    same_device("out", *out, "u", t);
    apart("out", *out, "u", t);
    if (elements(t) == 0) return;
    if (t.device == AWASE_CPU)
      cpu::unpack(t, *out);
    else
      cuda::unpack(t, *out, stream);
  });
}

}  // extern "C"
