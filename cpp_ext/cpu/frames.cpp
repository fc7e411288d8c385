// Frames: float NCHW in [-1, 1] to uint8 NHWC and back, with the bits of the NumPy twin.
//
// The values of a pixel's channels are put together in the lanes of 32-bit integers (r | g << 8 | b << 16), from which
// a shuffle of bytes makes 3 bytes a pixel.
#include "cpu/frames.h"
#include "cpu/simd.h"

namespace awase::cpu::AWASE_ISA {
namespace {

constexpr int kLanes = lanes<float>;
using Floats = Vec<float>;
using Words = Vec<uint32_t>;

// round((x + 1) 127.5) of x cut to [-1, 1], halves to even; NaN gives 0.
AWASE_INLINE Words quantized(Floats x) {
#if defined(__AVX512F__)
  // max gives its second operand where one is NaN.
  x = (Floats)_mm512_maskz_max_ps(0xFFFF, (__m512)x, _mm512_set1_ps(-1));
  x = (Floats)_mm512_maskz_min_ps(0xFFFF, (__m512)x, _mm512_set1_ps(1));
  return (Words)_mm512_maskz_cvtps_epi32(0xFFFF, (__m512)((x + 1.0f) * 127.5f));
#elif defined(__AVX2__)
  x = (Floats)_mm256_min_ps(_mm256_max_ps((__m256)x, _mm256_set1_ps(-1)), _mm256_set1_ps(1));
  return (Words)_mm256_cvtps_epi32((__m256)((x + 1.0f) * 127.5f));
#elif defined(__x86_64__)
  x = (Floats)_mm_min_ps(_mm_max_ps((__m128)x, _mm_set1_ps(-1)), _mm_set1_ps(1));
  return (Words)_mm_cvtps_epi32((__m128)((x + 1.0f) * 127.5f));
#elif defined(__ARM_NEON)
  x = (Floats)vminnmq_f32(vmaxnmq_f32((float32x4_t)x, vdupq_n_f32(-1)), vdupq_n_f32(1));
  return (Words)vcvtnq_s32_f32((float32x4_t)((x + 1.0f) * 127.5f));
#else
  Words y;
  for (int lane = 0; lane < kLanes; ++lane) {
    const float low = x[lane] > -1 ? x[lane] : -1, cut = low < 1 ? low : 1;
    y[lane] = uint32_t(__builtin_rintf((cut + 1) * 127.5f));
  }
  return y;
#endif
}

// u / 127.5 - 1
AWASE_INLINE Floats opened(Words u) { return __builtin_convertvector((Vec<int32_t>)u, Floats) / 127.5f - 1.0f; }

// ---- kLanes pixels of C bytes each ----

#if defined(__x86_64__)
#define AWASE_THREE_OF_FOUR 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1
#define AWASE_FOUR_OF_THREE 0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1
#endif

// Bytes from `from` on that unpixels<C> reads.
template <int C>
constexpr int kReads = C * kLanes;
#if defined(__AVX2__) || defined(__ARM_NEON)
template <>
constexpr int kReads<3> = 3 * kLanes + 4;  // whole registers of 16 bytes, 12 of them used
#endif

template <int C>
AWASE_INLINE void put(uint8_t *to, Words pixel) {
  if (C == 4) return store(reinterpret_cast<uint32_t *>(to), pixel);
#if defined(__AVX512F__)
  if (C == 1)
    return _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm512_maskz_cvtepi32_epi8(0xFFFF, (__m512i)pixel));
  if (C == 3) {
    const __m512i bytes =
        _mm512_shuffle_epi8((__m512i)pixel, _mm512_maskz_broadcast_i32x4(0xFFFF, _mm_setr_epi8(AWASE_THREE_OF_FOUR)));
    const __m512i order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 15, 15, 15, 15);
    return _mm512_mask_storeu_epi32(to, 0x0FFF, _mm512_maskz_permutexvar_epi32(0xFFFF, order, bytes));
  }
#elif defined(__AVX2__)
  if (C == 1) {
    const __m256i words = _mm256_packus_epi32((__m256i)pixel, (__m256i)pixel);
    const __m256i bytes = _mm256_packus_epi16(words, words);
    const uint32_t low = uint32_t(_mm256_extract_epi32(bytes, 0)), high = uint32_t(_mm256_extract_epi32(bytes, 4));
    memcpy(to, &low, 4);
    memcpy(to + 4, &high, 4);
    return;
  }
  if (C == 3) {
    const __m256i mask = _mm256_broadcastsi128_si256(_mm_setr_epi8(AWASE_THREE_OF_FOUR));
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8((__m256i)pixel, mask),
                                                      _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 7, 7));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm256_castsi256_si128(bytes));
    _mm_storel_epi64(reinterpret_cast<__m128i *>(to + 16), _mm256_extracti128_si256(bytes, 1));
    return;
  }
#elif defined(__ARM_NEON)
  if (C == 3) {
    const uint8_t order[16] = {0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 255, 255, 255, 255};
    const uint8x16_t bytes = vqtbl1q_u8((uint8x16_t)pixel, vld1q_u8(order));
    vst1_u8(to, vget_low_u8(bytes));
    const uint32_t last = vgetq_lane_u32((uint32x4_t)bytes, 2);
    memcpy(to + 8, &last, 4);
    return;
  }
#endif
  for (int lane = 0; lane < kLanes; ++lane)
    for (int c = 0; c < C; ++c) to[lane * C + c] = uint8_t(pixel[lane] >> (8 * c));
}

template <int C>
AWASE_INLINE Words get(const uint8_t *from) {
  if (C == 4) return load(reinterpret_cast<const uint32_t *>(from));
#if defined(__AVX512F__)
  if (C == 1)
    return (Words)_mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
  if (C == 3) {
    __m512i bytes = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + 12)), 1);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + 24)), 2);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + 36)), 3);
    return (Words)_mm512_shuffle_epi8(bytes, _mm512_maskz_broadcast_i32x4(0xFFFF, _mm_setr_epi8(AWASE_FOUR_OF_THREE)));
  }
#elif defined(__AVX2__)
  if (C == 1) return (Words)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(from)));
  if (C == 3) {
    __m256i bytes = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i *>(from)));
    bytes = _mm256_inserti128_si256(bytes, _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + 12)), 1);
    return (Words)_mm256_shuffle_epi8(bytes, _mm256_broadcastsi128_si256(_mm_setr_epi8(AWASE_FOUR_OF_THREE)));
  }
#elif defined(__ARM_NEON)
  if (C == 3) {
    const uint8_t order[16] = {0, 1, 2, 255, 3, 4, 5, 255, 6, 7, 8, 255, 9, 10, 11, 255};
    return (Words)vqtbl1q_u8(vld1q_u8(from), vld1q_u8(order));
  }
#endif
  Words pixel = {};
  for (int lane = 0; lane < kLanes; ++lane)
    for (int c = 0; c < C; ++c) pixel[lane] |= uint32_t(from[lane * C + c]) << (8 * c);
  return pixel;
}

// ---- runs of pixels that lie side by side, their channels `plane` floats apart ----

template <int C>
AWASE_INLINE Words quantized_pixels(const float *x, int64_t plane) {
  Words pixel = quantized(load(x));
  for (int c = 1; c < C; ++c) pixel |= quantized(load(x + c * plane)) << (8 * c);
  return pixel;
}

template <int C>
AWASE_INLINE void open_pixels(Words pixel, float *x, int64_t plane) {
  for (int c = 0; c < C; ++c) store(x + c * plane, opened((pixel >> (8 * c)) & 255u));
}

// C channels to pixels of B bytes; a fourth byte beside three channels is alpha.
template <int C, int B = C>
void pack_run(const float *x, int64_t plane, uint8_t *u, int64_t count) {
  const uint32_t alpha = B > C ? 255u << 24 : 0u;
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) put<B>(u + k * B, quantized_pixels<C>(x + k, plane) | alpha);
  if (k == count) return;
  float in[C * kLanes] = {};
  uint8_t out[B * kLanes];
  for (int c = 0; c < C; ++c) memcpy(in + c * kLanes, x + c * plane + k, size_t(count - k) * sizeof(float));
  put<B>(out, quantized_pixels<C>(in, kLanes) | alpha);
  memcpy(u + k * B, out, size_t(count - k) * B);
}

// Three channels side by side to pixels of 4 bytes: as they are to RGB, and that to RGBA.
void pack_run_alpha(const float *x, uint8_t *u, int64_t count) {
  constexpr int kPixels = 64;
  uint8_t rgb[3 * kPixels + kReads<3>] = {}, out[4 * kPixels];
  for (int64_t start = 0; start < count; start += kPixels) {
    const int size = count - start < kPixels ? int(count - start) : kPixels;
    pack_run<1>(x + 3 * start, 0, rgb, 3 * size);
    uint8_t *to = size == kPixels ? u + 4 * start : out;
    for (int k = 0; k < size; k += kLanes) put<4>(to + 4 * k, get<3>(rgb + 3 * k) | 255u << 24);
    if (to == out) memcpy(u + 4 * start, out, size_t(4 * size));
  }
}

template <int C>
void unpack_run(const uint8_t *u, float *x, int64_t plane, int64_t count) {
  int64_t k = 0;
  for (; k * C + kReads<C> <= count * C; k += kLanes) open_pixels<C>(get<C>(u + k * C), x + k, plane);
  while (k < count) {  // twice at most
    const int64_t left = count - k < kLanes ? count - k : kLanes;
    uint8_t in[kReads<C>] = {};
    float out[C * kLanes];
    memcpy(in, u + k * C, size_t(left * C));
    open_pixels<C>(get<C>(in), out, kLanes);
    for (int c = 0; c < C; ++c) memcpy(x + c * plane + k, out + c * kLanes, size_t(left) * sizeof(float));
    k += left;
  }
}

// ---- any strides, any number of channels ----

void pack_strided(const FramesCall &call, const float *x, uint8_t *u, int64_t count) {
  float in[64];
  uint8_t out[64];
  for (int64_t c = 0; c < call.channels; ++c) {
    for (int64_t start = 0; start < count; start += 64) {
      const int size = count - start < 64 ? int(count - start) : 64;
      for (int k = 0; k < size; ++k) in[k] = x[c * call.x.c + (start + k) * call.x.w];
      pack_run<1>(in, 0, out, size);
      for (int k = 0; k < size; ++k) u[c * call.u.c + (start + k) * call.u.w] = out[k];
    }
  }
  if (!call.alpha) return;
  for (int64_t k = 0; k < count; ++k) u[call.channels * call.u.c + k * call.u.w] = 255;
}

void unpack_strided(const FramesCall &call, const uint8_t *u, float *x, int64_t count) {
  uint8_t in[64];
  float out[64];
  for (int64_t c = 0; c < call.channels; ++c) {
    for (int64_t start = 0; start < count; start += 64) {
      const int size = count - start < 64 ? int(count - start) : 64;
      for (int k = 0; k < size; ++k) in[k] = u[c * call.u.c + (start + k) * call.u.w];
      unpack_run<1>(in, out, 0, size);
      for (int k = 0; k < size; ++k) x[c * call.x.c + (start + k) * call.x.w] = out[k];
    }
  }
}

// Calls run(x, u, pixels) for rows begin .. end, row = n H + h, joined to longer ones where they lie side by side.
template <class Run>
AWASE_INLINE void each_run(const FramesCall &call, int64_t begin, int64_t end, Run run) {
  for (int64_t row = begin; row < end;) {
    const int64_t n = row / call.height, h = row % call.height;
    int64_t rows = 1;
    if (call.joined) rows = end - row < call.height - h ? end - row : call.height - h;
    run(n * call.x.n + h * call.x.h, n * call.u.n + h * call.u.h, rows * call.width);
    row += rows;
  }
}

}  // namespace

void pack(const FramesCall &call, int64_t begin, int64_t end) {
  each_run(call, begin, end, [&](int64_t at, int64_t to, int64_t count) __attribute__((always_inline)) {
    const float *x = call.floats + at;
    uint8_t *u = call.bytes + to;
    switch (call.planes) {
      case 1: return call.alpha ? pack_run_alpha(x, u, count) : pack_run<1>(x, 0, u, count * call.values);
      case 2: return pack_run<2>(x, call.x.c, u, count);
      case 3: return call.alpha ? pack_run<3, 4>(x, call.x.c, u, count) : pack_run<3>(x, call.x.c, u, count);
      case 4: return pack_run<4>(x, call.x.c, u, count);
      default: return pack_strided(call, x, u, count);
    }
  });
}

void unpack(const FramesCall &call, int64_t begin, int64_t end) {
  each_run(call, begin, end, [&](int64_t to, int64_t at, int64_t count) __attribute__((always_inline)) {
    float *x = call.floats + to;
    const uint8_t *u = call.bytes + at;
    switch (call.planes) {
      case 1: return unpack_run<1>(u, x, 0, count * call.values);
      case 2: return unpack_run<2>(u, x, call.x.c, count);
      case 3: return unpack_run<3>(u, x, call.x.c, count);
      case 4: return unpack_run<4>(u, x, call.x.c, count);
      default: return unpack_strided(call, u, x, count);
    }
  });
}

}  // namespace awase::cpu::AWASE_ISA
