// Blending of latents: out = w a + (1 - w) b on rows of channels that share a weight.
//
// Where one pair is blended under many weights, a tile of the pair stays in the first-level cache while all weights
// pass over it: only the results go to memory.
#include "cpu/blend.h"
#include "cpu/simd.h"

namespace awase::cpu::AWASE_ISA {
namespace {

constexpr int64_t kTile = 2048;  // values: 8 KiB of a and of b, of 32 KiB or more

// Past the caches, where the instruction set can; `out` aligned to a vector.
AWASE_INLINE void stream(float *out, Vec<float> v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(out, (__m512)v);
#elif defined(__AVX2__)
  _mm256_stream_ps(out, (__m256)v);
#elif defined(__x86_64__)
  _mm_stream_ps(out, (__m128)v);
#else
  store(out, v);
#endif
}

// What was streamed is there for other threads before anything that follows.
AWASE_INLINE void settle() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// The first `count` values, less than a vector.
AWASE_INLINE void few(float *out, const float *a, const float *b, Vec<float> w, Vec<float> rest, int64_t count) {
  float x[lanes<float>] = {}, y[lanes<float>] = {};
  memcpy(x, a, size_t(count) * sizeof(float));
  memcpy(y, b, size_t(count) * sizeof(float));
  store(x, fma(w, load(x), rest * load(y)));
  memcpy(out, x, size_t(count) * sizeof(float));
}

template <bool kStream>
AWASE_INLINE void row(float *out, const float *a, const float *b, float weight, int64_t count) {
  // A copy, for no bit may change (-0, NaN) and a value that is not asked for must not bring its NaN.
  if (weight == 1 || weight == 0) {
    const float *from = weight == 1 ? a : b;
    if (from != out) memcpy(out, from, size_t(count) * sizeof(float));
    return;
  }
  const Vec<float> w = splat(weight), rest = splat(1 - weight);
  int64_t k = 0;
  if (kStream) {
    const int64_t past = int64_t(reinterpret_cast<uintptr_t>(out) % kBytes);
    k = (kBytes - past) % kBytes / int64_t(sizeof(float));
    if (k > count) k = count;
    if (k) few(out, a, b, w, rest, k);
  }
  constexpr int kUnroll = 4;
  for (; k + kUnroll * lanes<float> <= count; k += kUnroll * lanes<float>) {
    Vec<float> mixed[kUnroll];
#pragma GCC unroll 4
    for (int v = 0; v < kUnroll; ++v) {
      const int64_t at = k + v * lanes<float>;
      mixed[v] = fma(w, load(a + at), rest * load(b + at));
    }
#pragma GCC unroll 4
    for (int v = 0; v < kUnroll; ++v) {
      float *to = out + k + v * lanes<float>;
      kStream ? stream(to, mixed[v]) : store(to, mixed[v]);
    }
  }
  for (; k + lanes<float> <= count; k += lanes<float>) store(out + k, fma(w, load(a + k), rest * load(b + k)));
  if (k < count) few(out + k, a + k, b + k, w, rest, count - k);
}

// The same for values that do not lie side by side.
void strided(float *out, int64_t so, const float *a, int64_t sa, const float *b, int64_t sb, float weight,
             int64_t count) {
  float x[64], y[64];
  for (int64_t start = 0; start < count; start += 64) {
    const int size = count - start < 64 ? int(count - start) : 64;
    for (int k = 0; k < size; ++k) {
      x[k] = a[(start + k) * sa];
      y[k] = b[(start + k) * sb];
    }
    row<false>(x, x, y, weight, size);
    for (int k = 0; k < size; ++k) out[(start + k) * so] = x[k];
  }
}

// Channels c .. c + count of item l, which share a weight.
AWASE_INLINE void channels(const BlendCall &call, int64_t l, int64_t c, int64_t count, float weight) {
  const BlendView &za = call.za, &zb = call.zb, &to = call.out;
  float *out = to.data + l * to.n + c * to.c;
  const float *a = za.data + l * za.n + c * za.c, *b = zb.data + l * zb.n + c * zb.c;
  const int64_t size = call.height * call.width;
  if (call.whole)
    return call.stream ? row<true>(out, a, b, weight, count * size) : row<false>(out, a, b, weight, count * size);
  for (int64_t k = 0; k < count; ++k, out += to.c, a += za.c, b += zb.c) {
    for (int64_t y = 0; y < call.height; ++y) {
      float *o = out + y * to.h;
      const float *p = a + y * za.h, *q = b + y * zb.h;
      if (to.w == 1 && za.w == 1 && zb.w == 1)
        row<false>(o, p, q, weight, call.width);
      else
        strided(o, to.w, p, za.w, q, zb.w, weight, call.width);
    }
  }
}

// One past the last of the channels from c on that share c's part, but at most `end`.
AWASE_INLINE int64_t part_end(const BlendCall &call, int64_t &part, int64_t c, int64_t end) {
  while (call.ends[part] <= c) ++part;
  return call.ends[part] < end ? call.ends[part] : end;
}

}  // namespace

// Rows begin .. end, row = l C + c.
void blend_rows(const BlendCall &call, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end;) {
    const int64_t l = index / call.channels, first = index % call.channels;
    const int64_t left = end - index < call.channels - first ? end - index : call.channels - first;
    int64_t part = 0;
    for (int64_t c = first, next; c < first + left; c = next) {
      next = part_end(call, part, c, first + left);
      channels(call, l, c, next - c, call.weights[l * call.weights_l + part * call.weights_p]);
    }
    index += left;
  }
  if (call.stream) settle();
}

// Channels begin .. end of one pair under all weights.
void blend_grid(const BlendCall &call, int64_t begin, int64_t end) {
  const int64_t size = call.height * call.width, tile = size < kTile ? kTile / size : 1;
  int64_t part = 0;
  for (int64_t c = begin, next; c < end; c = next) {
    next = part_end(call, part, c, c + tile < end ? c + tile : end);
    for (int64_t l = 0; l < call.count; ++l)
      channels(call, l, c, next - c, call.weights[l * call.weights_l + part * call.weights_p]);
  }
  if (call.stream) settle();
}

}  // namespace awase::cpu::AWASE_ISA
